// SPDX-License-Identifier: Apache-2.0
import CKernels

/// x less the mean of its channel, in the element type. The mean comes as a sum of two terms, the second of them what
/// the first rounded away, and is subtracted before anything is scaled: nothing cancels but what the real numbers cancel.
/// The usual x·a + b loses as many digits as |mean| / std has.
struct Centred<T: Element, L: Layout> {
    private let values: Column<T>
    private let hi: PerChannel<T, L>
    private let lo: PerChannel<T, L>

    @inline(__always)
    init(_ operand: kernel_operand, hi: UnsafeRawPointer, lo: UnsafeRawPointer, _ tile: kernel_tile, _ strip: Strip) {
        values = Column(operand, tile, strip, ahead: tile.ahead)
        self.hi = PerChannel(hi, strip)
        self.lo = PerChannel(lo, strip)
    }

    @inline(__always)
    func prefetch(_ k: Int) { values.prefetch(k) }

    @inline(__always)
    func value(_ k: Int) -> SIMD16<T> { (values.load(k) - hi.at(k)) - lo.at(k) }
}

/// y = (x − mean) · scale + shift, where scale is gamma · invstd and shift is beta.
struct Normalize<T: Element, L: Layout>: Formula {
    private let x: Centred<T, L>
    private let scale: PerChannel<T, L>
    private let shift: PerChannel<T, L>

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        x = Centred(tile.x, hi: channels.mean_hi, lo: channels.mean_lo, tile, strip)
        scale = PerChannel(channels.scale, strip)
        shift = PerChannel(channels.shift, strip)
    }

    @inline(__always)
    func prefetch(_ k: Int) { x.prefetch(k) }

    @inline(__always)
    func value(_ k: Int) -> SIMD16<T> { x.value(k) * scale.at(k) + shift.at(k) }
}
