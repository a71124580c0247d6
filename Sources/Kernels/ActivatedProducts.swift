// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Σg and Σg · x, where g is what of dy passes a clip: for channels as ProductSums is for.
struct ActivatedProducts<T: Element, L: Layout>: Terms where T.Number == Float {
    typealias Order = L

    private let values: Passing<T, L, Clips>

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        values = Passing(tile, channels, strip, reduces: true)
    }

    @inline(__always)
    func prefetch(_ k: Int) { values.prefetchSoon(k) }

    /// Lanes beyond a short strip hold dy = 0 and add nothing.
    @inline(__always)
    func add(_ k: Int, to sums: Sums) -> Sums {
        let values = values.at(k)
        let g = Float.widen(values.g)
        return Sums(first: sums.first + g, second: vector_add_product(sums.second, g, Float.widen(values.x)))
    }
}
