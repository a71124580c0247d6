// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// State that a thread keeps between its calls: its last error, and working memory, so that a call allocates nothing once
/// the thread has made one like it. It is freed when the thread ends.
struct ThreadState {
    private var message: Message
    /// The text that bn_last_error() returns: the message, or a literal.
    private(set) var lastError: UnsafePointer<CChar>
    /// 1 while a call is at work. A second one, from a signal handler, would write where the first one does.
    private var isBusy: Int32 = 0
    /// Threads for this one's calls, in place of the library's.
    var lentThreads: LentThreads?
    /// The number of arguments that a call has entered, and memory for its notes on each.
    var arguments = 0
    let argumentMemory: UnsafeMutableRawPointer
    /// No function takes more pointers, its structures among them.
    static let mostArguments = 32
    static let argumentBytes = mostArguments * 64
    /// The epilogue that a call's loops read, and a vector of the zeros that stand for no residual.
    let epilogue: UnsafeMutablePointer<kernel_epilogue>
    private let zeros: UnsafeMutablePointer<UInt64>
    private let slots: UnsafeMutableRawPointer
    /// Memory of one sweep; of a call that takes several; and of one that finds x_hat from an output.
    var working = Scratch()
    var kept = Scratch()
    var undone = Scratch()
    /// Which groups have samples.
    var seen = Scratch()

    /// A structure that a call has one of: on the stack it would be there several times over.
    enum Slot: Int {
        case descriptors, sweep, channels, finalize
        fileprivate static let bytes = 1024
        fileprivate static let count = 4
    }

    /// The structure's memory. A debug build checks that it fits.
    func slot<T: ~Copyable>(_ slot: Slot, _: T.Type) -> UnsafeMutablePointer<T> {
        precondition(MemoryLayout<T>.size <= Slot.bytes)
        return (slots + slot.rawValue * Slot.bytes).assumingMemoryBound(to: T.self)
    }

    /// The calling thread's own; nil if there is no memory for it.
    static func current(_ key: pthread_key_t) -> UnsafeMutablePointer<ThreadState>? {
        if let known = threads_get(key) { return known.assumingMemoryBound(to: ThreadState.self) }
        return first(key)
    }

    @inline(never)
    private static func first(_ key: pthread_key_t) -> UnsafeMutablePointer<ThreadState>? {
        var layout = ArrayLayout()
        let header = layout.add(ThreadState.self, 1)
        let text = layout.add(CChar.self, Message.capacity)
        let arguments = layout.add(UInt8.self, argumentBytes)
        let epilogue = layout.add(kernel_epilogue.self, 1)
        let zeros = layout.add(UInt64.self, 16)
        let slots = layout.add(UInt8.self, Slot.bytes * Slot.count)
        var found: UnsafeMutableRawPointer?
        guard posix_memalign(&found, 64, layout.bytes) == 0, let memory = found else { return nil }
        let message = Message(text.in(memory))
        header.in(memory).initialize(
            to: ThreadState(
                message: message, lastError: UnsafePointer(message.text), argumentMemory: arguments.in(memory),
                epilogue: epilogue.in(memory), zeros: zeros.in(memory), slots: slots.in(memory)))
        header.in(memory).pointee.message.clear()
        guard threads_set(key, memory) == 0 else {
            free(memory)
            return nil
        }
        return header.in(memory)
    }

    static func destroy(_ memory: UnsafeMutableRawPointer?) {
        guard let state = memory?.assumingMemoryBound(to: ThreadState.self) else { return }
        state.pointee.working.release()
        state.pointee.kept.release()
        state.pointee.undone.release()
        state.pointee.seen.release()
        free(memory)
    }

    func setEpilogue(_ kernel: kernel_epilogue, _ element: kernel_element) {
        epilogue.pointee = kernel
        epilogue.pointee.top = element.before(kernel.high)
        zeros.update(repeating: element.negativeZeros, count: 16)
        epilogue.pointee.zeros = UnsafeRawPointer(zeros)
    }

    mutating func record(_ failure: Failure, in function: StaticString) {
        failure.describe(in: function, to: &message)
        lastError = UnsafePointer(message.text)
    }

    /// Lets a call begin, unless another one is at work on this thread. That one's message may be half written, so a refusal
    /// has a literal of its own.
    mutating func enter() -> Bool {
        if machine_enter(&isBusy) {
            arguments = 0
            return true
        }
        lastError = characters(
            """
            the call interrupts another one on the same thread; expected none from a signal handler or a parallel_for \
            before that one returns
            """)
        return false
    }

    mutating func leave() { machine_leave(&isBusy) }
}
