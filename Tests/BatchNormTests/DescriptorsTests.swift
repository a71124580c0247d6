// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import XCTest

/// Epilogues, weights and groups on several threads: the same bits, and no race for a sanitizer to see.
final class DescriptorsTests: XCTestCase {
    override func tearDown() { check(bn_set_num_threads(0)) }

    /// Just enough for two threads: split by channels, by blocks of planes, by panels of rows, and by short planes.
    private static let shapes = [(4, 33, 1024), (2, 1, 66_000), (512, 257, 1), (460, 17, 17)]

    /// The descriptors of a call, which have to live as long as it.
    private struct Told {
        var weights = bn_weights()
        var epilogue = bn_epilogue()
        var groups = bn_groups()
        var isWeighted = false
        var groupCount = 1

        func call(_ shape: bn_shape, frozen: Bool, _ body: (inout bn_shape, inout bn_options) -> bn_status) {
            var (shape, options) = (shape, options(frozen: frozen))
            withUnsafePointer(to: weights) { weights in
                withUnsafePointer(to: epilogue) { epilogue in
                    withUnsafePointer(to: groups) { groups in
                        if isWeighted { shape.weights = weights }
                        options.epilogue = epilogue
                        if groupCount > 1 { options.groups = groups }
                        check(body(&shape, &options))
                    }
                }
            }
        }
    }

    private func layer(_ outer: Int, _ channels: Int, _ inner: Int, _ told: Told) -> [UInt64] {
        var generator = Generator(seed: 7)
        func values(_ count: Int) -> [Float] { (0..<count).map { _ in Float(generator.normal()) } }
        let (x, z, dy) = (
            values(outer * channels * inner), values(outer * channels * inner), values(outer * channels * inner)
        )
        let (gamma, beta) = (values(channels), values(channels))
        let weights = values(outer * inner).map { $0 > -0.5 ? Float(1) : 0 }
        var (mean, variance) = (values(channels), [Float](repeating: 1, count: channels))
        var (y, dx, dz) = (x, x, x)
        var (dgamma, dbeta) = (gamma, gamma)
        var saved = [Double](repeating: 0, count: channels * told.groupCount)
        var inverseStd = saved
        var mask = [UInt8](repeating: 0, count: (x.count + 7) / 8)
        var told = told
        let shape = shape(outer, channels, inner)
        weights.withUnsafeBytes { weights in
            z.withUnsafeBytes { z in
                told.weights.values = weights.baseAddress
                told.epilogue.z = z.baseAddress
                mask.withUnsafeMutableBufferPointer { mask in
                    told.epilogue.mask = mask.baseAddress
                    told.call(shape, frozen: false) {
                        bn_forward_training(
                            &$0, BN_FLOAT32, x, gamma, beta, &mean, &variance, &y, &saved, &inverseStd, &$1)
                    }
                }
                told.epilogue.mask = nil
                dz.withUnsafeMutableBytes { dz in
                    told.epilogue.dz = dz.baseAddress
                    told.call(shape, frozen: false) {
                        bn_backward(
                            &$0, BN_FLOAT32, dy, x, gamma, beta, saved, inverseStd, &dx, &dgamma, &dbeta, &$1)
                    }
                }
            }
        }
        let floats = [y, dx, dz, mean, variance, dgamma, dbeta].flatMap { $0.map { UInt64($0.bitPattern) } }
        return floats + (saved + inverseStd).map(\.bitPattern) + mask.map { UInt64($0) }
    }

    private func compare(_ told: Told, _ name: String) {
        for (outer, channels, inner) in Self.shapes {
            check(bn_set_num_threads(1))
            let alone = layer(outer, channels, inner, told)
            check(bn_set_num_threads(2))
            let together = layer(outer, channels, inner, told)
            XCTAssertTrue(together == alone, "\(name), \(outer) x \(channels) x \(inner)")
        }
    }

    private func told(_ activation: bn_activation) -> Told {
        var told = Told()
        told.epilogue.struct_size = MemoryLayout<bn_epilogue>.size
        told.epilogue.activation = activation
        told.epilogue.slope = 0.25
        told.epilogue.high = 6
        told.weights.struct_size = MemoryLayout<bn_weights>.size
        told.weights.masked = BN_MASKED_ZERO
        told.groups.struct_size = MemoryLayout<bn_groups>.size
        return told
    }

    func testClips() { compare(told(BN_RELU), "ReLU") }

    func testOtherActivations() { compare(told(BN_LEAKY_RELU), "leaky ReLU") }

    func testWeights() {
        var told = told(BN_RELU)
        told.isWeighted = true
        compare(told, "weights")
    }

    func testGroups() {
        var told = told(BN_CLIP)
        told.groups.samples = 2
        told.groups.groups = 2
        told.groups.per_group = 1
        told.groupCount = 2
        compare(told, "ghost batches")
    }
}
