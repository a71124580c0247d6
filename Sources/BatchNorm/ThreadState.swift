// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// What a thread keeps between its calls: its last error, and working memory, so that a call allocates nothing once the
/// thread has made one like it. Freed when the thread ends.
struct ThreadState {
    /// What a call's loops are told of its epilogue: here, and first, so that its place is known and stays.
    var epilogue = kernel_epilogue()
    private var message: Message
    /// The text that bn_last_error() returns: the message, or a literal.
    private(set) var lastError: UnsafePointer<CChar>
    /// 1 while a call is at work. A second one, from a signal handler, would write where the first one does.
    private var inside: Int32 = 0
    /// Where a call gathers its arguments, and how many of them are its structures.
    let regions: UnsafeMutablePointer<Region>
    var structures = 0
    /// Where it keeps what its structures point to, which it reads once.
    let descriptors: UnsafeMutablePointer<Descriptors>
    /// The sweep that it runs, and what follows from it.
    let sweep: UnsafeMutablePointer<Sweep>
    let forward: UnsafeMutablePointer<ForwardSettlement>
    let backward: UnsafeMutablePointer<BackwardSettlement>
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
        return first(key)
    }

    @inline(never)
    private static func first(_ key: pthread_key_t) -> UnsafeMutablePointer<ThreadState>? {
        var size = 0
        // All begin on cache lines: the zeros are loaded once per vector.
        func place(_ bytes: Int) -> Int {
            defer { size += (bytes + 63) & ~63 }
            return size
        }
        let header = place(MemoryLayout<ThreadState>.stride)
        let regions = place(Memory.capacity * MemoryLayout<Region>.stride)
        let descriptors = place(MemoryLayout<Descriptors>.stride)
        let sweep = place(MemoryLayout<Sweep>.stride)
        let forward = place(MemoryLayout<ForwardSettlement>.stride)
        let backward = place(MemoryLayout<BackwardSettlement>.stride)
        let zeros = place(16 * MemoryLayout<UInt64>.stride)
        let text = place(Message.capacity)
        var found: UnsafeMutableRawPointer?
        guard posix_memalign(&found, 64, size) == 0, let memory = found else { return nil }
        let state = (memory + header).bindMemory(to: ThreadState.self, capacity: 1)
        state.initialize(
            to: ThreadState(
                message: Message((memory + text).bindMemory(to: CChar.self, capacity: Message.capacity)),
                regions: (memory + regions).bindMemory(to: Region.self, capacity: Memory.capacity),
                descriptors: (memory + descriptors).bindMemory(to: Descriptors.self, capacity: 1),
                sweep: (memory + sweep).bindMemory(to: Sweep.self, capacity: 1),
                forward: (memory + forward).bindMemory(to: ForwardSettlement.self, capacity: 1),
                backward: (memory + backward).bindMemory(to: BackwardSettlement.self, capacity: 1),
                zeros: (memory + zeros).bindMemory(to: UInt64.self, capacity: 16)))
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

    mutating func record(_ failure: Failure, in function: StaticString) {
        failure.describe(in: function, to: &message)
        lastError = UnsafePointer(message.text)
    }

    /// Lets a call begin, unless another one is at work on this thread. That one's message may be half written, so a refusal
    /// has a literal of its own.
    mutating func enter() -> Bool {
        if machine_enter(&inside) {
            structures = 0
            return true
        }
        lastError = characters(
            "the call interrupts another one on the same thread; expected none from a signal handler before that one returns"
        )
        return false
    }

    mutating func leave() { machine_leave(&inside) }

    private init(
        message: Message, regions: UnsafeMutablePointer<Region>, descriptors: UnsafeMutablePointer<Descriptors>,
        sweep: UnsafeMutablePointer<Sweep>, forward: UnsafeMutablePointer<ForwardSettlement>,
        backward: UnsafeMutablePointer<BackwardSettlement>, zeros: UnsafeMutablePointer<UInt64>
    ) {
        self.message = message
        lastError = UnsafePointer(message.text)
        self.regions = regions
        self.descriptors = descriptors
        self.sweep = sweep
        self.forward = forward
        self.backward = backward
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
