// SPDX-License-Identifier: Apache-2.0
import CKernels

/// y = clip(u), u = (x − mean) · scale + shift + z: a ReLU and its like, which are so common, and so short, that they have
/// loops of their own. Without z a zero is added that changes nothing, from one vector again and again.
struct Clipped<T: Element, L: Layout>: Formula {
    typealias Scalar = T
    static var isShort: Bool { true }

    private let x: Centred<T, L>
    private let z: Column<T>
    private let scale: PerChannel<T.Number, L>
    private let shift: PerChannel<T.Number, L>
    private let clip: Clip<T.Number>

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        x = Centred(tile.x, channels.mean, tile, strip)
        z = Column(residual: tile, strip)
        scale = PerChannel(channels.scale, strip)
        shift = PerChannel(channels.shift, strip)
        clip = Clip(tile.epilogue.pointee)
    }

    @inline(__always)
    func prefetch(_ k: Int) {
        x.prefetch(k)
        z.prefetch(k)
    }

    @inline(__always)
    func value(_ k: Int) -> SIMD16<T.Number> { clip.value((x.value(k) * scale.at(k) + shift.at(k)) + z.load(k)) }
}

extension Column {
    /// z, or the zero that stands for it.
    @inline(__always)
    init(residual tile: kernel_tile, _ strip: Strip, step: Int = laneCount) {
        if tile.z.base == nil {
            self.init(constant: tile.epilogue.pointee.zeros, tile, strip)
        } else {
            self.init(tile.z, tile, strip, step: step == laneCount ? step : tile.z.stride)
        }
    }
}
