// SPDX-License-Identifier: Apache-2.0
import CBatchNorm

/// Threads of a caller's, which it lends to the calls that one of its own makes: those of a framework that keeps its threads
/// awake, beside which the library's would have to wait for a processor.
struct LentThreads {
    private let run: bn_parallel_for
    private let context: UnsafeMutableRawPointer?

    /// Nil if there is no function.
    init?(_ run: bn_parallel_for?, _ context: UnsafeMutableRawPointer?) {
        guard let run else { return nil }
        self.run = run
        self.context = context
    }

    /// Has `work(argument, index)` called for every index below a number.
    func callAsFunction(
        _ count: Int, _ argument: UnsafeMutableRawPointer,
        _ work: @escaping @convention(c) (UnsafeMutableRawPointer?, Int) -> Void
    ) {
        run(context, count, work, argument)
    }
}
