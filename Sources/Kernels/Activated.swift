// SPDX-License-Identifier: Apache-2.0
import CKernels

/// y = activation((x − mean) · scale + shift + z); at positions of weight 0, what is wanted there.
struct Activated<T: Element, L: Layout, K: EpilogueKind>: Formula {
    typealias Scalar = T
    static var isShort: Bool { K.isClip }

    private let x: Column<T>
    private let z: Column<T>
    private let weights: Positions<T.Number, L>?
    private let mean: PerChannel<T.Number, L>
    private let scale: PerChannel<T.Number, L>
    private let shift: PerChannel<T.Number, L>
    private let activation: Activation<T.Number, K>
    private let masked: kernel_masked

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        x = Column(tile.x, tile, strip)
        z = Column(residual: tile, strip)
        weights = K.isClip || tile.weights.base == nil ? nil : Positions(tile, strip)
        mean = PerChannel(channels.mean, tile, strip)
        scale = PerChannel(channels.scale, tile, strip)
        shift = PerChannel(channels.shift, tile, strip)
        activation = Activation(tile.epilogue.pointee)
        masked = tile.epilogue.pointee.masked
    }

    @inline(__always)
    func prefetch(_ k: Int) {
        x.prefetch(k)
        z.prefetch(k)
    }

    @inline(__always)
    func value(_ k: Int) -> SIMD16<T.Number> {
        let raw = x.load(k)
        let u = ((raw - mean.at(k)) * scale.at(k) + shift.at(k)) + z.load(k)
        let y = activation.value(u)
        guard !K.isClip, let weights, masked != KERNEL_MASKED_NORMALIZE else { return y }
        return T.Number.above(weights.at(k), .zero, y, masked == KERNEL_MASKED_KEEP ? raw : .zero)
    }
}

extension Column {
    /// z; without one a zero that changes nothing it is added to, from one vector again and again. Along a strip, or down
    /// the rows of a column.
    @inline(__always)
    init(residual tile: kernel_tile, _ strip: Strip, down: Bool = false) {
        if tile.z.base == nil {
            self.init(constant: tile.epilogue.pointee.zeros, tile, strip)
        } else {
            self.init(tile.z, tile, strip, step: down ? tile.z.stride : laneCount)
        }
    }
}
