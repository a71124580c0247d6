// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// What a thread keeps between its calls: its last error, and working memory, so that a call allocates nothing once the
/// thread has made one like it. Freed when the thread ends.
struct ThreadState {
    /// What a call's loops are told of its epilogue: here, and first, so that its place is known and stays.
    var epilogue = kernel_epilogue()
    private var message: Message
    /// Where a call gathers its arguments.
    let regions: UnsafeMutablePointer<Region>
    /// A vector of the elements that stand for no residual.
    private let zeros: UnsafeMutablePointer<UInt64>
    /// Of one sweep; of a call that takes several; and of one that finds x_hat from an output.
    var working = Scratch()
    var kept = Scratch()
    var undone = Scratch()
    /// Which groups have samples.
    var seen = Scratch()

    /// The calling thread's own; nil if there is no memory for it.
    static func current(_ key: pthread_key_t) -> UnsafeMutablePointer<ThreadState>? {
        if let known = threads_get(key) { return known.assumingMemoryBound(to: ThreadState.self) }
        let header = MemoryLayout<ThreadState>.stride
        // To the next cache line: the zeros are loaded once per vector.
        let regions = ((header + Memory.capacity * MemoryLayout<Region>.stride + 63) & ~63) - header
        let zeros = 16 * MemoryLayout<UInt64>.stride
        var found: UnsafeMutableRawPointer?
        guard posix_memalign(&found, 64, header + regions + zeros + Message.capacity) == 0, let memory = found else {
            return nil
        }
        let state = memory.bindMemory(to: ThreadState.self, capacity: 1)
        let text = (memory + header + regions + zeros).bindMemory(to: CChar.self, capacity: Message.capacity)
        state.initialize(
            to: ThreadState(
                message: Message(text),
                regions: (memory + header).bindMemory(to: Region.self, capacity: Memory.capacity),
                zeros: (memory + header + regions).bindMemory(to: UInt64.self, capacity: 16)))
        state.pointee.message.clear()
        guard threads_set(key, memory) == 0 else {
            free(memory)
            return nil
        }
        return state
    }

    static func destroy(_ memory: UnsafeMutableRawPointer?) {
        memory?.assumingMemoryBound(to: ThreadState.self).pointee.working.release()
        memory?.assumingMemoryBound(to: ThreadState.self).pointee.kept.release()
        memory?.assumingMemoryBound(to: ThreadState.self).pointee.undone.release()
        memory?.assumingMemoryBound(to: ThreadState.self).pointee.seen.release()
        free(memory)
    }

    mutating func setEpilogue(_ kernel: kernel_epilogue, _ element: kernel_element) {
        epilogue = kernel
        epilogue.top = element.before(kernel.high)
        let zero: UInt64 =
            switch element {
            case KERNEL_FLOAT32: 0x8000_0000_8000_0000
            case KERNEL_FLOAT64: 0x8000_0000_0000_0000
            default: 0x8000_8000_8000_8000
            }
        zeros.update(repeating: zero, count: 16)
        epilogue.zeros = UnsafeRawPointer(zeros)
    }

    var lastError: UnsafePointer<CChar> { UnsafePointer(message.text) }

    mutating func record(_ failure: Failure, in function: StaticString) { failure.describe(in: function, to: &message) }

    private init(
        message: Message, regions: UnsafeMutablePointer<Region>, zeros: UnsafeMutablePointer<UInt64>
    ) {
        self.message = message
        self.regions = regions
        self.zeros = zeros
    }
}

/// Memory that grows.
struct Scratch {
    private var memory: UnsafeMutableRawPointer?
    private var capacity = 0

    /// At least so many bytes, aligned to a cache line, with what an earlier call left in them.
    mutating func reserve(_ bytes: Int) throws(Failure) -> UnsafeMutableRawPointer {
        if let memory, bytes <= capacity { return memory }
        release()
        var found: UnsafeMutableRawPointer?
        guard posix_memalign(&found, 64, max(bytes, 4096)) == 0, let found else {
            throw Failure(BN_ERROR_MEMORY, "working memory", .size(bytes), expected: "that many bytes to be free")
        }
        memory = found
        capacity = max(bytes, 4096)
        return found
    }

    mutating func release() {
        free(memory)
        memory = nil
        capacity = 0
    }
}
