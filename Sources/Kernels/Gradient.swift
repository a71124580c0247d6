// SPDX-License-Identifier: Apache-2.0
import CKernels

/// dx = ((dy − mean(dy)) − (x − mean) · slope) · scale, with slope = invstd² · mean(dy · (x − mean)) and
/// scale = gamma · invstd: the gradient through the statistics.
struct Gradient<T: Element, L: Layout>: Formula {
    typealias Order = L

    private let dy: Centred<T, L>
    private let x: Centred<T, L>
    private let slope: SIMD16<T>
    private let scale: SIMD16<T>

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        dy = Centred(tile.dy, hi: channels.dy_mean_hi, lo: channels.dy_mean_lo, strip)
        x = Centred(tile.x, hi: channels.mean_hi, lo: channels.mean_lo, strip)
        slope = perLane(channels.slope.assumingMemoryBound(to: T.self), strip, L.self)
        scale = perLane(channels.scale.assumingMemoryBound(to: T.self), strip, L.self)
    }

    @inline(__always)
    func value(_ k: Int) -> SIMD16<T> { (dy.value(k) - x.value(k) * slope) * scale }
}

/// dx = dy · scale: the gradient when the statistics are constants.
struct Scale<T: Element, L: Layout>: Formula {
    typealias Order = L

    private let dy: Column<T, L>
    private let scale: SIMD16<T>

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        dy = Column(tile.dy, strip)
        scale = perLane(channels.scale.assumingMemoryBound(to: T.self), strip, L.self)
    }

    @inline(__always)
    func value(_ k: Int) -> SIMD16<T> { dy.load(k) * scale }
}
