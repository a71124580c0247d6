// SPDX-License-Identifier: Apache-2.0
import CKernels

/// dx = ((dy − mean(dy)) − (x − mean) · slope) · scale, with slope = invstd² · mean(dy · (x − mean)) and
/// scale = gamma · invstd: the gradient through the statistics.
struct Gradient<T: Element, L: Layout>: Formula {
    private let dy: Centred<T, L>
    private let x: Centred<T, L>
    private let slope: PerChannel<T, L>
    private let scale: PerChannel<T, L>

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        dy = Centred(tile.dy, hi: channels.dy_mean_hi, lo: channels.dy_mean_lo, tile, strip)
        x = Centred(tile.x, hi: channels.mean_hi, lo: channels.mean_lo, tile, strip)
        slope = PerChannel(channels.slope, strip)
        scale = PerChannel(channels.scale, strip)
    }

    @inline(__always)
    func prefetch(_ k: Int) {
        dy.prefetch(k)
        x.prefetch(k)
    }

    @inline(__always)
    func value(_ k: Int) -> SIMD16<T> { (dy.value(k) - x.value(k) * slope.at(k)) * scale.at(k) }
}
