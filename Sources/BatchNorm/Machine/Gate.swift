// SPDX-License-Identifier: Apache-2.0
import Synchronization

/// The workers' way in to a job. How many threads may come, and how many are inside, is one word: a worker enters by the same
/// step that sees the job open, and a closed job with nobody inside stays so. With a lock in its place a job took 4 µs
/// instead of 1: a worker that spins saw the job before its caller had let go of the lock, and the kernel put it to sleep.
struct Gate: ~Copyable {
    /// From the lowest bits up: workers inside; threads that share the job, the caller's among them, or none if it is closed;
    /// whether the caller sleeps until nobody is inside; the number of the job. It wraps around, after 512 jobs where a word
    /// has 32 bits: a worker that slept for just so many misses one, which its caller does.
    private let word = Atomic<UInt>(0)
    /// Workers that sleep, or are about to.
    private let parked = Atomic<Int>(0)

    private static let bits: UInt = 11
    private static let inside: UInt = 1 << bits - 1
    private static let awaited: UInt = 1 << (2 * bits)
    private static let first: UInt = awaited << 1

    /// Opens the next job to workers with a number below `shares`. Nobody is inside. Returns true if any worker may be asleep.
    func open(shares: Int) -> Bool {
        let number = word.load(ordering: .relaxed) / Gate.first
        // This store and the next load, and those of `workerSleeps` the other way round, are in one order for all threads:
        // either the worker sees the job, or its caller sees the worker.
        word.store((number &+ 1) &* Gate.first | UInt(shares) << Gate.bits, ordering: .sequentiallyConsistent)
        return parked.load(ordering: .sequentiallyConsistent) > 0
    }

    /// Lets nobody in any more.
    func close() { word.bitwiseAnd(~(Gate.inside << Gate.bits), ordering: .relaxed) }

    /// True if nobody is inside; then what they wrote is seen.
    var isEmpty: Bool { word.load(ordering: .acquiring) & Gate.inside == 0 }

    /// The caller is about to sleep until nobody is inside: the last one wakes it.
    func callerSleeps() { word.bitwiseOr(Gate.awaited, ordering: .relaxed) }

    /// True if there is a job for a worker, other than the last one that it entered.
    func admits(_ worker: Int, after last: UInt) -> Bool {
        Gate.admits(word.load(ordering: .sequentiallyConsistent), worker, after: last)
    }

    private static func admits(_ word: UInt, _ worker: Int, after last: UInt) -> Bool {
        word / first != last && word >> bits & inside > worker
    }

    /// Enters, and returns the number of the job; nil if there is none for the worker.
    func enter(_ worker: Int, after last: UInt) -> UInt? {
        var seen = word.load(ordering: .relaxed)
        while Gate.admits(seen, worker, after: last) {
            let (entered, now) = word.weakCompareExchange(
                expected: seen, desired: seen + 1, successOrdering: .acquiring, failureOrdering: .relaxed)
            if entered { return seen / Gate.first }
            seen = now
        }
        return nil
    }

    /// Returns true if the caller sleeps and this was the last worker, which has to wake it.
    func leave() -> Bool {
        let left = word.wrappingSubtract(1, ordering: .releasing).newValue
        return left & (Gate.inside | Gate.awaited) == Gate.awaited
    }

    /// A worker is about to sleep. Returns true if there is nothing for it to do instead.
    func workerSleeps(_ worker: Int, after last: UInt) -> Bool {
        parked.wrappingAdd(1, ordering: .sequentiallyConsistent)
        return !admits(worker, after: last)
    }

    /// It is awake again.
    func workerWakes() { parked.wrappingSubtract(1, ordering: .relaxed) }
}
