// SPDX-License-Identifier: Apache-2.0

/// Work in numbered items, any of which may run on any thread. The items, not the threads, decide how a result is put
/// together, so that it does not depend on how many threads there were.
struct Job {
    let count: Int
    let context: UnsafeRawPointer
    /// Takes the context, the number of an item and that of the worker, which is less than the number of threads asked for.
    /// A C function, as there is no memory to be had for a closure.
    typealias Body = @convention(c) (UnsafeRawPointer, _ item: Int, _ worker: Int) -> Void
    let body: Body
    /// Threads that have a share of the items, the caller's among them.
    let shares: Int
    /// True if each share is done from its last item to its first.
    let isDescending: Bool

    func share(_ worker: Int) -> Range<Int> {
        count * worker / shares..<count * (worker + 1) / shares
    }

    /// Does one item of a share: that of an index, or the one as far from the end as the index is from the start.
    @inline(never)
    func run(_ index: Int, of share: Range<Int>, worker: Int) {
        body(context, isDescending ? share.lowerBound + share.upperBound - 1 - index : index, worker)
    }
}
