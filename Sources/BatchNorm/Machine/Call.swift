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
        guard let library = Library.shared, let thread = library.pointee.thread else { return BN_ERROR_MEMORY }
        guard thread.pointee.enter() else { return BN_ERROR_NESTED }
        defer { thread.pointee.leave() }
        do throws(Failure) {
            try body(Call(library: library, thread: thread))
            return BN_OK
        } catch {
            thread.pointee.record(error, in: function)
            return error.status
        }
    }

    /// Like `serve`, but refuses to compute in an environment that asks for what cannot be; and computes in the default
    /// floating-point environment, as loops of different instruction sets, and what LLVM makes of a constant, agree to
    /// the bit in that one alone. The caller's comes back with its flags.
    @inline(__always)
    static func compute(_ function: StaticString, _ body: (Call) throws(Failure) -> Void) -> bn_status {
        serve(function) { call throws(Failure) in
            try call.library.pointee.environment.check()
            let floats = machine_enter_floats()
            defer { machine_leave_floats(floats) }
            try body(call)
        }
    }

    var kernels: UnsafePointer<kernel_table> { library.pointee.kernels }
}
