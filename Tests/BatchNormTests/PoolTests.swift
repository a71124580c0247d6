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

    private func run(_ pool: Pool, _ count: Int, threads: Int, descending: Bool = false, _ log: Log) {
        pool.run(count, Unmanaged.passUnretained(log).toOpaque(), threads: threads, descending: descending) {
            Unmanaged<Log>.fromOpaque($0).takeUnretainedValue().note($1, $2)
        }
    }

    func testEveryItemIsDoneOnceByWorkersOfTheirOwn() throws {
        let pool = try XCTUnwrap(Pool(processors: 8))
        for threads in [1, 2, 3, 8, 5, 32, 2] {
            for count in [1, 2, 7, 8, 9, Log.items] {
                let log = Log()
                for round in 0..<20 { run(pool, count, threads: threads, descending: round % 2 == 1, log) }
                let done = log.done.map { $0.count.load(ordering: .relaxed) }
                XCTAssertEqual(done, (0..<Log.items).map { $0 < count ? 20 : 0 }, "\(count) on \(threads) threads")
                XCTAssertEqual(log.clashes.count.load(ordering: .relaxed), 0, "\(count) on \(threads) threads")
            }
        }
    }

    /// A share goes from its first item to its last, or from its last to its first.
    func testSharesHaveADirection() throws {
        let pool = try XCTUnwrap(Pool(processors: 1))
        final class Order: Sendable { let items = Mutex<[Int]>([]) }
        for descending in [false, true] {
            let order = Order()
            let place = UnsafeRawPointer(Unmanaged.passUnretained(order).toOpaque())
            pool.run(5, place, threads: 8, descending: descending) { place, item, _ in
                Unmanaged<Order>.fromOpaque(place).takeUnretainedValue().items.withLock { $0.append(item) }
            }
            XCTAssertEqual(order.items.withLock { $0 }, descending ? [4, 3, 2, 1, 0] : [0, 1, 2, 3, 4])
        }
        let nowhere = UnsafeRawPointer(bitPattern: 1)!
        let job = Job(count: 10, context: nowhere, body: { _, _, _ in }, shares: 3, isDescending: true)
        XCTAssertEqual((0..<3).map { job.share($0) }, [0..<3, 3..<6, 6..<10])
    }

    /// A worker enters each job once while it is open, and not at all when it is closed or has fewer shares.
    func testTheGateLetsEachWorkerInOnce() {
        let gate = Gate()
        XCTAssertNil(gate.enter(1, after: 0))
        XCTAssertFalse(gate.open(shares: 2))
        XCTAssertFalse(gate.admits(2, after: 0))
        XCTAssertNil(gate.enter(2, after: 0))
        let job = gate.enter(1, after: 0)
        XCTAssertEqual(job, 1)
        XCTAssertNil(gate.enter(1, after: 1))
        XCTAssertFalse(gate.isEmpty)
        gate.close()
        gate.callerSleeps()
        XCTAssertNil(gate.enter(1, after: 0))
        XCTAssertTrue(gate.leave(), "the caller sleeps until now")
        XCTAssertTrue(gate.isEmpty)
        XCTAssertTrue(gate.workerSleeps(1, after: 1), "there is nothing to do")
        XCTAssertTrue(gate.open(shares: 2), "a worker may be asleep")
        XCTAssertEqual(gate.enter(1, after: 1), 2)
        XCTAssertFalse(gate.leave(), "the caller is awake")
        gate.workerWakes()
        XCTAssertFalse(gate.workerSleeps(1, after: 1), "there is a job")
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
