// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// A call of the C ABI on its way through the engine.
struct Call {
    let library: UnsafeMutablePointer<Library>
    let thread: UnsafeMutablePointer<ThreadState>

    /// Runs the body of an exported function, and turns what it throws into a status and a message.
    @inline(__always)
    static func serve(_ function: StaticString, _ body: (Call) throws(Failure) -> Void) -> bn_status {
        let (begun, refusal) = begin()
        guard let call = begun else { return refusal }
        do throws(Failure) { try body(call) } catch { return call.fail(error, in: function) }
        call.thread.pointee.leave()
        return BN_OK
    }

    @inline(never)
    private static func begin() -> (Call?, refusal: bn_status) {
        guard let library = Library.shared, let thread = library.pointee.thread else { return (nil, BN_ERROR_MEMORY) }
        guard thread.pointee.enter() else { return (nil, BN_ERROR_NESTED) }
        return (Call(library: library, thread: thread), BN_OK)
    }

    @inline(never)
    private func fail(_ failure: Failure, in function: StaticString) -> bn_status {
        thread.pointee.record(failure, in: function)
        thread.pointee.leave()
        return failure.status
    }

    /// Like `serve`, but refuses to compute in an environment that asks for what cannot be; and computes in the default
    /// floating-point environment, as loops of different instruction sets, and what LLVM makes of a constant, agree to
    /// the bit in that one alone. The caller's comes back with its flags.
    @inline(__always)
    static func compute(_ function: StaticString, _ body: (Call) throws(Failure) -> Void) -> bn_status {
        serve(function) { call throws(Failure) in
            if !call.library.pointee.environment.isSound { try call.library.pointee.environment.check() }
            let floats = machine_enter_floats()
            call.thread.pointee.lentThreads?.floats = floats
            defer { machine_leave_floats(floats) }
            try body(call)
        }
    }

    /// Runs all items of a job on the library's threads, or on those that were lent to this one.
    func run(
        _ count: Int, _ context: UnsafeRawPointer, threads: Int, descending: Bool = false, _ body: Job.Body
    ) {
        library.pointee.pool.run(
            count, context, threads: threads, lent: thread.pointee.lentThreads, descending: descending, body)
    }

    var kernels: UnsafePointer<kernel_table> { library.pointee.kernels }
}
