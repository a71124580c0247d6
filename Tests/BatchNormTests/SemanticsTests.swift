// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import XCTest

/// The promises of batchnorm.h beside the formulas: constant and empty channels, values that are not finite, running
/// statistics.
final class SemanticsTests: XCTestCase {
    /// A constant channel of any magnitude is beta, to the bit, whatever eps is.
    func testConstantChannelIsBeta() {
        for value: Float in [0, 1, -3.7, 16_777_215, 71 * .leastNonzeroMagnitude, 3e38] {
            for eps in [0, 1e-5] {
                for (outer, inner) in [(7, 33), (100, 1)] {
                    let x = [Float](repeating: value, count: outer * 2 * inner)
                    var y = x
                    var mean = [0.0, 0.0]
                    var shape = shape(outer, 2, inner)
                    var options = options(eps: eps)
                    check(
                        bn_forward_training(
                            &shape, BN_FLOAT32, x, nil, [0.25, -0.5] as [Float], nil, nil, &y, &mean, nil, &options))
                    XCTAssertEqual(mean, [Double(value), Double(value)])
                    for index in y.indices {
                        XCTAssertEqual(y[index], index / inner % 2 == 0 ? 0.25 : -0.5, "\(value), eps \(eps)")
                    }
                }
            }
        }
    }

    /// Mean and variance exact by construction: pairs m − d, m + d of small integers. No threshold.
    func testExactStatistics() {
        for (outer, inner) in [(2, 512), (1024, 1), (64, 16), (2048, 3)] {
            var x: [Float] = []
            for index in 0..<outer * inner { x.append(index % 2 == 0 ? 1000 : 1006) }
            var count = [0.0]
            var mean = [0.0]
            var m2 = [0.0]
            var shape = shape(outer, 1, inner)
            check(bn_moments(&shape, BN_FLOAT32, x, &count, &mean, &m2, 0, nil))
            XCTAssertEqual(count, [Double(outer * inner)])
            XCTAssertEqual(mean, [1003])
            XCTAssertEqual(m2, [9 * Double(outer * inner)])
        }
    }

    /// An outlier anywhere leaves the variance of 10,000 values about it exact to a few bits more than n.
    func testOutlierCancelsNothing() {
        for position in [0, 5000, 9999] {
            for magnitude in [1e3, 1e9, 1e30] {
                var generator = Generator(seed: 11)
                var x = (0..<10_000).map { _ in generator.normal() }
                x[position] = magnitude
                var (count, mean, m2) = ([0.0], [0.0], [0.0])
                var shape = shape(1, 1, 10_000)
                check(bn_moments(&shape, BN_FLOAT64, x, &count, &mean, &m2, 0, nil))
                let expected = ReferenceBatchNorm(outer: 1, channels: 1, inner: 10_000).m2(x)[0]
                XCTAssertEqual(m2[0] / expected, 1, accuracy: 1e-12, "\(magnitude) at \(position)")
            }
        }
    }

    /// A value that is not finite stays in its channel, and does there what the formula does.
    func testNonFiniteStaysInItsChannel() {
        for bad in [Float.nan, .infinity, -.infinity] {
            for inner in [1, 20] {
                let (outer, channels) = (30, 18)
                var generator = Generator(seed: 5)
                let clean = (0..<outer * channels * inner).map { _ in Float(generator.normal()) }
                for position in [0, clean.count / 2, clean.count - 1] {
                    var x = clean
                    x[position] = bad
                    let victim = position / inner % channels
                    var y = clean
                    var expected = clean
                    var mean = [Double](repeating: 0, count: channels)
                    var inverseStd = mean
                    var shape = shape(outer, channels, inner)
                    check(bn_forward_training(&shape, BN_FLOAT32, clean, nil, nil, nil, nil, &expected, nil, nil, nil))
                    check(bn_forward_training(&shape, BN_FLOAT32, x, nil, nil, nil, nil, &y, &mean, &inverseStd, nil))
                    for index in y.indices {
                        if index / inner % channels == victim {
                            XCTAssertTrue(y[index].isNaN, "\(bad) at \(position)")
                        } else {
                            XCTAssertEqual(y[index], expected[index])
                        }
                    }
                    XCTAssertEqual(String(mean[victim]), String(Double(bad)))
                    XCTAssertTrue(inverseStd[victim].isNaN)
                }
            }
        }
    }

    /// Infinities of one sign have an infinite mean, even where every value that could be a pivot is one.
    func testInfiniteMean() {
        for (outer, inner) in [(3, 30_000), (5000, 1)] {
            for bad in [Float.infinity, -.infinity] {
                var (count, mean, m2) = ([0.0], [0.0], [0.0])
                var shape = shape(outer, 1, inner)
                let x = [Float](repeating: bad, count: outer * inner)
                check(bn_moments(&shape, BN_FLOAT32, x, &count, &mean, &m2, 0, nil))
                XCTAssertEqual(mean, [Double(bad)])
                XCTAssertTrue(m2[0].isNaN)
            }
        }
    }

    /// Float64 outputs do not suffer from a mean that no double can hold: x is a trillion of ulps away from 0.
    func testMeanBetweenDoubles() {
        for (outer, inner) in [(1, 40_000), (5000, 1)] {
            let offset = 1e12
            // The ulp is 2⁻¹³: values of 0 to 6 of them, of which the mean is not one.
            let x = (0..<outer * inner).map { offset + Double($0 * $0 % 7) * 0x1p-13 }
            let small = x.map { $0 - offset }
            let reference = ReferenceBatchNorm(outer: outer, channels: 1, inner: inner)
            let expected = reference.xHat(
                small, mean: reference.mean(small), inverseStd: reference.inverseStd(small, eps: 1e-12))
            var y = x
            var shape = shape(outer, 1, inner)
            var options = options(eps: 1e-12)
            check(bn_forward_training(&shape, BN_FLOAT64, x, nil, nil, nil, nil, &y, nil, nil, &options))
            for index in y.indices { XCTAssertEqual(y[index], expected[index], accuracy: 1e-13) }
        }
    }

    func testRunningStatistics() {
        let x: [Float] = [1, 2, 3, 6]
        var shape = shape(4, 1, 1)
        for (biased, variance) in [(false, 14.0 / 3), (true, 3.5)] {
            var mean: [Float] = [10]
            var runningVar: [Float] = [1]
            var y = x
            var options = options(momentum: 0.25, biased: biased)
            check(bn_forward_training(&shape, BN_FLOAT32, x, nil, nil, &mean, &runningVar, &y, nil, nil, &options))
            XCTAssertEqual(mean, [0.75 * 10 + 0.25 * 3])
            XCTAssertEqual(runningVar, [Float(0.75 + 0.25 * variance)])
        }
    }

    func testEmptyBatchChangesNothing() {
        for (outer, inner) in [(0, 4), (3, 0), (0, 1)] {
            var shape = shape(outer, 2, inner)
            var runningMean: [Float] = [3, 4]
            var runningVar: [Float] = [5, 6]
            var saved = [9.0, 9.0]
            var inverseStd = [9.0, 9.0]
            check(
                bn_forward_training(
                    &shape, BN_FLOAT32, nil, nil, nil, &runningMean, &runningVar, nil, &saved, &inverseStd, nil))
            XCTAssertEqual(runningMean, [3, 4])
            XCTAssertEqual(runningVar, [5, 6])
            XCTAssertEqual(saved, [0, 0])
            XCTAssertEqual(inverseStd, [1 / 1e-5.squareRoot(), 1 / 1e-5.squareRoot()])
            var dgamma: [Float] = [7, 7]
            var dbeta: [Float] = [7, 7]
            check(bn_backward(&shape, BN_FLOAT32, nil, nil, nil, nil, saved, inverseStd, nil, &dgamma, &dbeta, nil))
            XCTAssertEqual(dgamma + dbeta, [0, 0, 0, 0])
            var (count, mean, m2) = ([9.0, 9.0], [9.0, 9.0], [9.0, 9.0])
            check(bn_moments(&shape, BN_FLOAT32, nil, &count, &mean, &m2, 0, nil))
            XCTAssertEqual(count + mean + m2, [0, 0, 0, 0, 0, 0])
        }
    }

    func testOneValuePerChannel() {
        var shape = shape(1, 3, 1)
        let x: [Float] = [1, 2, 3]
        var y = x
        XCTAssertEqual(
            bn_forward_training(&shape, BN_FLOAT32, x, nil, nil, nil, nil, &y, nil, nil, nil), BN_ERROR_SINGLE_VALUE)
        XCTAssertEqual(y, x)
        XCTAssertEqual(
            String(cString: bn_last_error()),
            "bn_forward_training: values per channel (outer * inner) is 1; "
                + "expected more than 1 in training: one value has no variance"
        )
        check(bn_forward_inference(&shape, BN_FLOAT32, x, nil, nil, x, x, &y, nil, nil, nil))
    }
}
