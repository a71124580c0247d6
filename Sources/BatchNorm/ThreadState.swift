// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// What a thread keeps between its calls: its last error, and working memory, so that a call allocates nothing once the
/// thread has made one like it. Freed when the thread ends.
struct ThreadState {
    private var message: Message
    private var scratch: UnsafeMutableRawPointer?
    private var capacity = 0

    /// The calling thread's own; nil if there is no memory for it.
    static func current(_ key: pthread_key_t) -> UnsafeMutablePointer<ThreadState>? {
        if let known = pthread_getspecific(key) { return known.assumingMemoryBound(to: ThreadState.self) }
        let header = MemoryLayout<ThreadState>.size
        guard let memory = malloc(header + Message.capacity) else { return nil }
        let state = memory.bindMemory(to: ThreadState.self, capacity: 1)
        let text = (memory + header).bindMemory(to: CChar.self, capacity: Message.capacity)
        state.initialize(to: ThreadState(message: Message(text)))
        state.pointee.message.clear()
        guard pthread_setspecific(key, memory) == 0 else {
            free(memory)
            return nil
        }
        return state
    }

    static func destroy(_ memory: UnsafeMutableRawPointer?) {
        free(memory?.assumingMemoryBound(to: ThreadState.self).pointee.scratch)
        free(memory)
    }

    var lastError: UnsafePointer<CChar> { UnsafePointer(message.text) }

    mutating func record(_ failure: Failure, in function: StaticString) { failure.describe(in: function, to: &message) }

    /// At least so many bytes, aligned to a cache line, with what an earlier call left in them.
    mutating func reserve(_ bytes: Int) throws(Failure) -> UnsafeMutableRawPointer {
        if let scratch, bytes <= capacity { return scratch }
        free(scratch)
        scratch = nil
        capacity = 0
        var memory: UnsafeMutableRawPointer?
        guard posix_memalign(&memory, 64, max(bytes, 4096)) == 0, let memory else {
            throw Failure(BN_ERROR_MEMORY, "working memory", .size(bytes), expected: "that many bytes to be free")
        }
        scratch = memory
        capacity = max(bytes, 4096)
        return memory
    }

    private init(message: Message) { self.message = message }
}
