// SPDX-License-Identifier: Apache-2.0
import CKernels

/// A tensor less the mean of its channel. The difference is rounded, the mean is one element; what that lost is in the
/// formula's shift.
struct Centred<T: Element, L: Layout> {
    private let values: Column<T>
    private let mean: PerChannel<T.Number, L>

    @inline(__always)
    init(_ operand: kernel_operand, _ mean: UnsafeRawPointer, _ tile: kernel_tile, _ strip: Strip) {
        values = Column(operand, tile, strip, step: L.runsDown ? operand.stride : laneCount)
        self.mean = PerChannel(mean, tile, strip)
    }

    @inline(__always)
    func prefetch(_ k: Int) { values.prefetch(k) }

    @inline(__always)
    func value(_ k: Int) -> SIMD16<T.Number> { values.load(k) - mean.at(k) }
}
