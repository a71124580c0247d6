// SPDX-License-Identifier: Apache-2.0
import CKernels

/// What of dy passes a clip whose argument is computed again from x, and x less its mean.
private struct PassingClip<T: Element, L: Layout> {
    let dy: Column<T>
    let x: Column<T>
    private let z: Column<T>
    private let mean: PerChannel<T.Number, L>
    private let scale: PerChannel<T.Number, L>
    private let shift: PerChannel<T.Number, L>
    private let clip: Clip<T.Number>
    private let moves: Int

    /// As of Passing.swift.
    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip, reduces: Bool) {
        let down = reduces && L.channelPerColumn
        dy = Column(tile.dy, tile, strip, step: down ? tile.dy.stride : laneCount)
        x = Column(tile.x, tile, strip, step: down ? tile.x.stride : laneCount)
        z = Column(residual: tile, strip, step: down ? 0 : laneCount)
        mean = PerChannel(channels.mean, strip)
        scale = PerChannel(channels.u_scale, strip)
        shift = PerChannel(channels.u_shift, strip)
        clip = Clip(tile.epilogue.pointee)
        moves = down ? 0 : 1
    }

    @inline(__always)
    func at(_ k: Int) -> (g: SIMD16<T.Number>, x: SIMD16<T.Number>, centred: SIMD16<T.Number>) {
        let mean = mean.at(k * moves)
        let x = x.load(k, fill: mean)
        let centred = x - mean
        let u = (centred * scale.at(k * moves) + shift.at(k * moves)) + z.load(k)
        return (clip.gradient(dy.load(k), u), x, centred)
    }
}

/// Σg and Σg · x of what passes: as of ProductSums.swift.
struct ClippedProducts<T: Element, L: Layout>: Terms where T.Number == Float {
    typealias Order = L

    private let values: PassingClip<T, L>

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        values = PassingClip(tile, channels, strip, reduces: true)
    }

    @inline(__always)
    func prefetch(_ k: Int) {
        values.dy.prefetchSoon(k)
        values.x.prefetchSoon(k)
    }

    /// The lanes beyond a short strip hold dy = 0, and add nothing.
    @inline(__always)
    func add(_ k: Int, to sums: Sums) -> Sums {
        let values = values.at(k)
        let g = Float.widen(values.g)
        return Sums(first: sums.first + g, second: vector_add_product(sums.second, g, Float.widen(values.x)))
    }
}

/// dz and dx of what passes: as of Gradient.swift.
struct ClippedGradient<T: Element, L: Layout>: Formula {
    typealias Scalar = T
    static var isShort: Bool { false }

    private let values: PassingClip<T, L>
    private let dz: Column<T>?
    private let dyMean: PerChannel<T.Number, L>
    private let slope: PerChannel<T.Number, L>
    private let shift: PerChannel<T.Number, L>
    private let scale: PerChannel<T.Number, L>

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        values = PassingClip(tile, channels, strip, reduces: false)
        dz = tile.dz.base == nil ? nil : Column(tile.dz, tile, strip)
        dyMean = PerChannel(channels.dy_mean, strip)
        slope = PerChannel(channels.slope, strip)
        shift = PerChannel(channels.shift, strip)
        scale = PerChannel(channels.scale, strip)
    }

    @inline(__always)
    func prefetch(_ k: Int) {
        values.dy.prefetch(k)
        values.x.prefetch(k)
    }

    @inline(__always)
    func value(_ k: Int) -> SIMD16<T.Number> {
        let (g, _, centred) = values.at(k)
        dz?.store(g, k, streams: false)
        return (((g - dyMean.at(k)) - centred * slope.at(k)) + shift.at(k)) * scale.at(k)
    }
}
