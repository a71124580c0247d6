// SPDX-License-Identifier: Apache-2.0
import CKernels

/// y = activation((x − mean) · scale + shift + z); at positions of weight 0, what is wanted there.
struct Activated<T: Element, L: Layout>: Formula {
    typealias Scalar = T
    static var isShort: Bool { false }

    private let x: Column<T>
    private let z: Column<T>?
    private let weights: Positions<T.Number, L>?
    private let mean: PerChannel<T.Number, L>
    private let scale: PerChannel<T.Number, L>
    private let shift: PerChannel<T.Number, L>
    private let activation: Activation<T.Number>
    private let masked: kernel_masked

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        x = Column(tile.x, tile, strip)
        z = tile.z.base == nil ? nil : Column(tile.z, tile, strip)
        weights = tile.weights.base == nil ? nil : Positions(tile, strip)
        mean = PerChannel(channels.mean, strip)
        scale = PerChannel(channels.scale, strip)
        shift = PerChannel(channels.shift, strip)
        activation = Activation(tile.epilogue.pointee)
        masked = tile.epilogue.pointee.masked
    }

    @inline(__always)
    func prefetch(_ k: Int) {
        x.prefetch(k)
        z?.prefetch(k)
    }

    @inline(__always)
    func value(_ k: Int) -> SIMD16<T.Number> {
        let raw = x.load(k)
        var u = (raw - mean.at(k)) * scale.at(k) + shift.at(k)
        if let z { u = u + z.load(k) }
        let y = activation.value(u)
        guard let weights, masked != KERNEL_MASKED_NORMALIZE else { return y }
        return T.Number.above(weights.at(k), .zero, y, masked == KERNEL_MASKED_KEEP ? raw : .zero)
    }
}
