// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Σg and Σg · (x − mean), where g is what of dy passes the activation and the mask.
struct ActivatedSums<T: Element, L: Layout>: Terms {
    typealias Order = L
    static var isShort: Bool { false }

    private let values: Passing<T, L, Everything>
    private let mean: SIMD16<Double>

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        values = Passing(tile, channels, strip, reduces: true)
        mean = PerChannel<Double, L>(channels.centre, tile, strip).at(0)
    }

    @inline(__always)
    func prefetch(_ k: Int) { values.prefetch(k) }

    /// Lanes beyond a short strip hold dy = 0 and add nothing.
    @inline(__always)
    func add(_ k: Int, to sums: Sums) -> Sums {
        let values = values.at(k)
        let g = T.Number.widen(values.g)
        return sums + Sums(first: g, second: g * (T.Number.widen(values.x) - mean))
    }
}
