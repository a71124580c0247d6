// SPDX-License-Identifier: Apache-2.0
import CKernels

/// g = dy · activation'(u), and x less the mean of its channel: a gradient begins with these two, in its sums and in its map
/// alike. The activation's argument is computed again from x, or undone of y; or bits tell what passes.
struct ActivationGradient<T: Element, L: Layout, K: EpilogueKind> {
    private let x: Column<T>
    private let dy: Column<T>
    private let z: Column<T>
    private let bits: Bits?
    private let weights: PositionWeights<T.Number, L>?
    private let mean: PerChannel<T.Number, L>
    private let scale: PerChannel<T.Number, L>
    private let shift: PerChannel<T.Number, L>
    private let activation: Activation<T.Number, K>
    private let epilogue: kernel_epilogue
    private let step: Int

    struct Values {
        let dy: SIMD16<T.Number>
        let g: SIMD16<T.Number>
        /// x, or u where x is the output.
        let x: SIMD16<T.Number>
        let centred: SIMD16<T.Number>
        let weight: SIMD16<T.Number>
    }

    /// For a strip that runs within a segment; or down the rows of a column, where the channels are the same at every step.
    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip, reduces: Bool) {
        let down = reduces && L.channelPerColumn(tile.layout)
        func column(_ operand: kernel_operand) -> Column<T> {
            Column(operand, tile, strip, step: down ? operand.stride : laneCount)
        }
        x = column(tile.x)
        dy = column(tile.dy)
        z = Column(residual: tile, strip, down: down)
        bits = K.isClip || tile.bits.base == nil ? nil : Bits(tile, strip, step: down ? tile.bits.stride : laneCount)
        weights = K.isClip || tile.weights.base == nil ? nil : PositionWeights(tile, strip, rows: down ? 1 : 0)
        mean = PerChannel(channels.mean, tile, strip)
        scale = PerChannel(channels.u_scale, tile, strip)
        shift = PerChannel(channels.u_shift, tile, strip)
        epilogue = tile.epilogue.pointee
        activation = Activation(epilogue)
        step = down ? 0 : 1
    }

    @inline(__always)
    func prefetch(_ k: Int) {
        x.prefetch(k)
        dy.prefetch(k)
        z.prefetch(k)
    }

    @inline(__always)
    func prefetchSoon(_ k: Int) {
        x.prefetchSoon(k)
        dy.prefetchSoon(k)
        z.prefetchSoon(k)
    }

    @inline(__always)
    func at(_ k: Int) -> Values {
        let mean = mean.at(k * step)
        let gradient = dy.load(k)
        // The lanes beyond a short strip are where nothing overflows.
        var x = x.load(k, fill: mean)
        let isOutput = !K.isClip && epilogue.from_output != 0
        if isOutput { x = activation.inverse(x) }
        let weight = weights?.at(k) ?? SIMD16(repeating: 1)
        let isMasked = weights != nil && epilogue.masked != .normalize
        if isMasked { x = T.Number.above(weight, .zero, x, mean) }
        let centred = x - mean
        var g: SIMD16<T.Number>
        if let bits {
            g = activation.gradient(gradient, passing: bits.at(k))
        } else {
            // There once for both, as the gradient is longer than all the rest.
            let u = isOutput ? x : (centred * scale.at(k * step) + shift.at(k * step)) + z.load(k)
            g = activation.gradient(gradient, u)
        }
        if isMasked { g = T.Number.above(weight, .zero, g, .zero) }
        return Values(dy: gradient, g: g, x: x, centred: centred, weight: weight)
    }
}
