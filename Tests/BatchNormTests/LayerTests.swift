// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import XCTest

/// The layer calls against the oracle, over shapes that reach every path of the engine: both layouts, one block and
/// several, tails of every kind, one channel and many.
final class LayerTests: XCTestCase {
    private static let shapes = [
        (2, 1, 1), (3, 5, 1), (40, 17, 1), (1030, 3, 1), (70_001, 1, 1), (33, 30, 1), (5, 300, 1), (2, 3, 7),
        (9, 4, 49), (5, 2, 196), (1, 3, 1000),
        (3, 1, 16390),
        (2500, 2, 7),
    ]

    func testForwardAndBackwardFloat() { for (n, c, i) in Self.shapes { agree(Float.self, n, c, i) } }
    func testForwardAndBackwardDouble() { for (n, c, i) in Self.shapes { agree(Double.self, n, c, i) } }

    /// A large mean costs float32 nothing: its bound is the same.
    func testLargeMean() {
        for mean in [1e2, 1e4, 1e6] {
            agree(Float.self, 8, 3, 100, mean: mean)
            agree(Float.self, 800, 3, 1, mean: mean)
        }
    }

    private func agree<T: TestElement>(_: T.Type, _ outer: Int, _ channels: Int, _ inner: Int, mean offset: Double = 0)
    {
        let seed = UInt64(outer * 10007 + channels * 101 + inner)
        var generator = Generator(seed: seed)
        func values(_ count: Int, _ offset: Double = 0) -> [T] {
            (0..<count).map { _ in T(generator.normal() + offset) }
        }
        let place = "\(T.self) \(outer) x \(channels) x \(inner), mean \(offset), seed \(seed)"
        let count = outer * channels * inner
        let x = values(count, offset)
        let dy = values(count)
        let gamma = values(channels)
        let beta = values(channels)
        var y = [T](repeating: 0, count: count)
        var dx = y
        var dgamma = gamma
        var dbeta = beta
        var mean = [Double](repeating: 0, count: channels)
        var inverseStd = mean
        var shape = shape(outer, channels, inner)
        check(bn_forward_training(&shape, T.dtype, x, gamma, beta, nil, nil, &y, &mean, &inverseStd, nil))

        let reference = ReferenceBatchNorm(outer: outer, channels: channels, inner: inner)
        func wide(_ values: [T]) -> [Double] { values.map { Double($0) } }
        let trueMean = reference.mean(wide(x))
        let trueInverseStd = reference.inverseStd(wide(x), eps: 1e-5)
        // Sums of n doubles lose √n · 2⁻⁵³ with random signs, of which 16 is ample; the oracle's lose nothing.
        let sums = 16 * Double(outer * inner).squareRoot() * 0x1p-53
        for channel in 0..<channels {
            XCTAssertEqual(mean[channel], trueMean[channel], accuracy: (1 + abs(offset)) * 4 * 0x1p-53 + sums, place)
            XCTAssertEqual(inverseStd[channel] / trueInverseStd[channel], 1, accuracy: sums, place)
        }

        // y: four operations and the rounding of scale, half an ulp each, of terms up to |gamma · x_hat| + |beta|.
        let ulp = Double(T.ulpOfOne)
        let expected = reference.forward(
            wide(x), gamma: wide(gamma), beta: wide(beta), mean: trueMean, inverseStd: trueInverseStd)
        let meanError = offset * ulp * ulp + (T.self == Double.self ? sums : 0)
        for index in 0..<count {
            let channel = index / inner % channels
            let scale = abs(expected[index] - Double(beta[channel])) + abs(Double(beta[channel])) + 1
            XCTAssertEqual(
                Double(y[index]), expected[index], accuracy: 2.5 * ulp * scale + (meanError + sums) * scale * 4, place)
        }

        for frozen in [false, true] {
            var options = options(frozen: frozen)
            check(bn_backward(&shape, T.dtype, dy, x, gamma, nil, mean, inverseStd, &dx, &dgamma, &dbeta, &options))
            let gradients = reference.backward(
                dy: wide(dy), x: wide(x), gamma: wide(gamma), mean: mean, inverseStd: inverseStd, frozen: frozen)
            let n = Double(outer * inner)
            for channel in 0..<channels {
                // Sums of n terms of about 1, in double in both.
                let bound =
                    ulp * (abs(gradients.dgamma[channel]) + abs(gradients.dbeta[channel])) + n.squareRoot() * sums
                XCTAssertEqual(Double(dgamma[channel]), gradients.dgamma[channel], accuracy: bound, place)
                XCTAssertEqual(Double(dbeta[channel]), gradients.dbeta[channel], accuracy: bound, place)
            }
            for index in 0..<count {
                // Eight operations on terms up to (|dy| + |x_hat| + 1) · gamma · invstd, all about 6 at most.
                let channel = index / inner % channels
                let natural = abs(Double(gamma[channel])) * inverseStd[channel] * (abs(Double(dy[index])) + 6)
                XCTAssertEqual(
                    Double(dx[index]), gradients.dx[index], accuracy: natural * (4 * ulp + 8 * sums),
                    "frozen \(frozen), " + place)
            }
        }
    }
}
