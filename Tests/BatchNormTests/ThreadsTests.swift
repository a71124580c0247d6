// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import Dispatch
import Glibc
import XCTest

/// The pool: the same bits for any number of threads, from any number of callers, and in a child after fork.
final class ThreadsTests: XCTestCase {
    override func tearDown() { check(bn_set_num_threads(0)) }

    /// A megabyte or more, which is enough for four threads: split by channels, by blocks of planes, by blocks of rows, by
    /// panels of rows of several widths, and by blocks of short planes in few groups.
    private static let shapes = [
        (4, 64, 1024), (2, 1, 131_072), (87_400, 3, 1), (1024, 256, 1), (128, 2048, 1), (40, 8192, 1),
        (3000, 17, 17),
    ]

    private struct Results: Equatable {
        var bits: [UInt64] = []
        mutating func add(_ values: [Float]) { bits += values.map { UInt64($0.bitPattern) } }
        mutating func add(_ values: [Double]) { bits += values.map(\.bitPattern) }
    }

    private func layer(_ outer: Int, _ channels: Int, _ inner: Int) -> Results {
        var generator = Generator(seed: 3)
        let x = (0..<outer * channels * inner).map { _ in Float(generator.normal() + 2) }
        let gamma = (0..<channels).map { _ in Float(generator.normal()) }
        var (runningMean, runningVar) = (gamma, gamma)
        var y = [Float](repeating: .nan, count: x.count)
        var dx = y
        var (dgamma, dbeta) = (gamma, gamma)
        var mean = [Double](repeating: 0, count: channels)
        var inverseStd = mean
        var shape = shape(outer, channels, inner)
        check(
            bn_forward_training(
                &shape, BN_FLOAT32, x, gamma, gamma, &runningMean, &runningVar, &y, &mean, &inverseStd, nil))
        check(bn_backward(&shape, BN_FLOAT32, y, x, gamma, nil, mean, inverseStd, &dx, &dgamma, &dbeta, nil))
        var results = Results()
        for values in [y, runningMean, runningVar, dx, dgamma, dbeta] { results.add(values) }
        for values in [mean, inverseStd] { results.add(values) }
        // In inference mode, forward and backward.
        var frozen = options(frozen: true)
        check(bn_forward_inference(&shape, BN_FLOAT32, x, gamma, gamma, gamma, runningVar, &y, nil, nil, nil))
        check(bn_backward(&shape, BN_FLOAT32, y, x, gamma, nil, mean, inverseStd, &dx, &dgamma, &dbeta, &frozen))
        for values in [y, dx, dgamma, dbeta] { results.add(values) }
        return results
    }

    func testBitsDoNotDependOnThreads() {
        for (outer, channels, inner) in Self.shapes {
            check(bn_set_num_threads(1))
            let alone = layer(outer, channels, inner)
            for threads: Int32 in [2, 3, 8] {
                check(bn_set_num_threads(threads))
                XCTAssertEqual(bn_get_num_threads(), threads)
                XCTAssertTrue(
                    layer(outer, channels, inner) == alone, "\(outer) x \(channels) x \(inner), \(threads) threads")
            }
        }
    }

    func testConcurrentCallers() {
        let (outer, channels, inner) = Self.shapes[0]
        check(bn_set_num_threads(1))
        let alone = layer(outer, channels, inner)
        check(bn_set_num_threads(3))
        DispatchQueue.concurrentPerform(iterations: 8) { _ in
            XCTAssertTrue(layer(outer, channels, inner) == alone)
        }
    }

    func testLimits() {
        for threads: Int32 in [-1, 1025, .max, .min] {
            XCTAssertEqual(bn_set_num_threads(threads), BN_ERROR_OPTION)
        }
        check(bn_set_num_threads(1024))
        XCTAssertEqual(bn_get_num_threads(), 1024)
    }
}
