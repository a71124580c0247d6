// SPDX-License-Identifier: Apache-2.0
import CKernels

/// x less the mean of its channel, in the element type. The mean comes as a sum of two terms, the second of them what
/// the first rounded away, and is subtracted before anything is scaled: nothing cancels but what the real numbers
/// cancel. The usual x·a + b loses as many digits as |mean| / std has.
struct Centred<T: Element, L: Layout> {
    private let values: Column<T, L>
    private let hi: SIMD16<T>
    private let lo: SIMD16<T>

    @inline(__always)
    init(_ operand: kernel_operand, hi: UnsafeRawPointer, lo: UnsafeRawPointer, _ strip: Strip) {
        values = Column(operand, strip)
        self.hi = perLane(hi.assumingMemoryBound(to: T.self), strip, L.self)
        self.lo = perLane(lo.assumingMemoryBound(to: T.self), strip, L.self)
    }

    @inline(__always)
    func value(_ k: Int) -> SIMD16<T> { (values.load(k) - hi) - lo }
}

/// y = (x − mean) · scale + shift, where scale is gamma · invstd and shift is beta.
struct Normalize<T: Element, L: Layout>: Formula {
    typealias Order = L

    private let x: Centred<T, L>
    private let scale: SIMD16<T>
    private let shift: SIMD16<T>

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        x = Centred(tile.x, hi: channels.mean_hi, lo: channels.mean_lo, strip)
        scale = perLane(channels.scale.assumingMemoryBound(to: T.self), strip, L.self)
        shift = perLane(channels.shift.assumingMemoryBound(to: T.self), strip, L.self)
    }

    @inline(__always)
    func value(_ k: Int) -> SIMD16<T> { x.value(k) * scale + shift }
}
