// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// Threads that a caller lends to the calls of one of its threads: a framework keeps its threads awake, and the library's would
/// have to wait for a processor.
struct LentThreads {
    private let run: bn_parallel_for
    private let context: UnsafeMutableRawPointer?
    /// The caller's environment, which the call at work has left.
    var floats = machine_floats()

    /// Nil if there is no function.
    init?(_ run: bn_parallel_for?, _ context: UnsafeMutableRawPointer?) {
        guard let run else { return nil }
        self.run = run
        self.context = context
    }

    /// Has `work(argument, index)` called for every index below a number, by the caller's own code in the caller's own
    /// floating-point environment: threads that begin there would keep the default one.
    func callAsFunction(
        _ count: Int, _ argument: UnsafeMutableRawPointer,
        _ work: @escaping @convention(c) (UnsafeMutableRawPointer?, Int) -> Void
    ) {
        machine_leave_floats(floats)
        run(context, count, work, argument)
        _ = machine_enter_floats()
    }
}
