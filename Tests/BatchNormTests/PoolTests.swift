// SPDX-License-Identifier: Apache-2.0
import Dispatch
import Synchronization
import XCTest

@testable import BatchNorm

/// The pool by itself, as on a machine of eight processors: every item is done once, by a worker of its own number.
final class PoolTests: XCTestCase {
    /// Counts how often each item was done, and notices two threads that work under one number at once.
    private final class Log: Sendable {
        static let items = 100
        let done: [Counter] = (0..<items).map { _ in Counter() }
        let working: [Counter] = (0..<Environment.mostThreads).map { _ in Counter() }
        let clashes = Counter()

        final class Counter: Sendable { let count = Atomic<Int>(0) }

        func note(_ item: Int, _ worker: Int) {
            if working[worker].count.wrappingAdd(1, ordering: .relaxed).oldValue != 0 {
                clashes.count.wrappingAdd(1, ordering: .relaxed)
            }
            done[item].count.wrappingAdd(1, ordering: .relaxed)
            sched_yield()
            working[worker].count.wrappingSubtract(1, ordering: .relaxed)
        }
    }

    private func run(_ pool: Pool, _ count: Int, threads: Int, _ log: Log) {
        pool.run(count, Unmanaged.passUnretained(log).toOpaque(), threads: threads) { context, item, worker in
            Unmanaged<Log>.fromOpaque(context).takeUnretainedValue().note(item, worker)
        }
    }

    func testEveryItemIsDoneOnceByWorkersOfTheirOwn() throws {
        let pool = try XCTUnwrap(Pool(processors: 8))
        for threads in [1, 2, 3, 8, 5, 32, 2] {
            for count in [1, 2, 7, 8, 9, Log.items] {
                let log = Log()
                for _ in 0..<20 { run(pool, count, threads: threads, log) }
                let done = log.done.map { $0.count.load(ordering: .relaxed) }
                XCTAssertEqual(done, (0..<Log.items).map { $0 < count ? 20 : 0 }, "\(count) on \(threads) threads")
                XCTAssertEqual(log.clashes.count.load(ordering: .relaxed), 0, "\(count) on \(threads) threads")
            }
        }
    }

    /// One caller has the workers; the others do their items alone, as worker 0 of their own call.
    func testCallersDoNotWaitForOneAnother() throws {
        let pool = try XCTUnwrap(Pool(processors: 4))
        let logs = (0..<6).map { _ in Log() }
        DispatchQueue.concurrentPerform(iterations: logs.count) { caller in
            for _ in 0..<50 { run(pool, Log.items, threads: 4, logs[caller]) }
        }
        for log in logs {
            XCTAssertTrue(log.done.allSatisfy { $0.count.load(ordering: .relaxed) == 50 })
            XCTAssertEqual(log.clashes.count.load(ordering: .relaxed), 0)
        }
    }
}
