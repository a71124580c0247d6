// SPDX-License-Identifier: Apache-2.0
import CKernels

/// The output of one vector of a strip.
protocol Formula {
    associatedtype Scalar: Element
    associatedtype Order: Layout
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip)
    func value(_ k: Int) -> SIMD16<Scalar>
}

/// The one loop that writes tensors. A vector is read whole before it is written, so `out` may be one of the inputs.
@inline(__always)
func map<F: Formula>(_: F.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
    var mapping = Mapping<F>(tile: tile, channels: channels)
    F.Order.walk(tile, &mapping)
}

private struct Mapping<F: Formula>: Walker {
    let tile: kernel_tile
    let channels: kernel_channels

    @inline(__always)
    func visit(_ strip: Strip) {
        let formula = F(tile, channels, strip)
        let out = Column<F.Scalar, F.Order>(tile.out, strip)
        for k in 0..<strip.count { out.store(formula.value(k), k) }
    }
}
