// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Σdy and Σdy · x, for channels as PowerSums is for: the product of two float32 values has 48 bits and is exact.
struct ProductSums<T: Element, L: Layout>: Accumulator where T.Number == Float {
    typealias ChannelLayout = L
    typealias Unrolled = WidePair<Self>

    private let dy: Column<T>
    private let x: Column<T>

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        dy = Column(reducing: tile.dy, tile, strip, L.self)
        x = Column(reducing: tile.x, tile, strip, L.self)
    }

    @inline(__always)
    func prefetch(_ k: Int) {
        dy.prefetchSoon(k)
        x.prefetchSoon(k)
    }

    @inline(__always)
    func add(_ k: Int, to sums: Sums) -> Sums {
        let g = Float.widen(dy.load(k))
        return Sums(
            first: sums.first + g, second: vector_add_product(sums.second, g, Float.widen(x.load(k))))
    }
}

/// Σdy and Σdy · (x − mean): all that the gradients need to know of the other values of a channel.
struct GradientSums<T: Arithmetic, L: Layout>: Accumulator {
    typealias ChannelLayout = L

    private let dy: Column<T>
    private let x: Column<T>
    private let mean: SIMD16<Double>

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        dy = Column(reducing: tile.dy, tile, strip, L.self)
        x = Column(reducing: tile.x, tile, strip, L.self)
        mean = PerChannel<Double, L>(channels.pivot, tile, strip).at(0)
    }

    @inline(__always)
    func prefetch(_ k: Int) {
        dy.prefetchSoon(k)
        x.prefetchSoon(k)
    }

    /// Lanes beyond a short strip hold dy = 0 and add nothing.
    @inline(__always)
    func add(_ k: Int, to sums: Sums) -> Sums {
        let g = T.widen(dy.load(k))
        return sums + Sums(first: g, second: g * (T.widen(x.load(k)) - mean))
    }
}

/// Σg and Σg · (x − mean), where g is what of dy passes the activation and the mask.
struct ActivatedSums<T: Element, L: Layout>: Accumulator {
    typealias ChannelLayout = L
    static var isShort: Bool { false }

    private let values: ActivationGradient<T, L, Everything>
    private let mean: SIMD16<Double>

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        values = ActivationGradient(tile, channels, strip, reduces: true)
        mean = PerChannel<Double, L>(channels.pivot, tile, strip).at(0)
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

/// Σg and Σg · x, where g is what of dy passes a clip: for channels as ProductSums is for.
struct ActivatedProducts<T: Element, L: Layout>: Accumulator where T.Number == Float {
    typealias ChannelLayout = L

    private let values: ActivationGradient<T, L, Clips>

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        values = ActivationGradient(tile, channels, strip, reduces: true)
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

enum ProductSumsLoop: FloatLoop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels)
    where T.Number == Float {
        reduce(ProductSums<T, L>.self, tile, channels)
    }
}

enum GradientSumsLoop: ArithmeticLoop {
    static func run<T: Arithmetic, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        reduce(GradientSums<T, L>.self, tile, channels)
    }
}

enum ActivatedSumsLoop: ElementLoop {
    static var isLong: Bool { true }

    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        reduce(ActivatedSums<T, L>.self, tile, channels)
    }
}

enum ClippedProductsLoop: FloatLoop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels)
    where T.Number == Float {
        reduce(ActivatedProducts<T, L>.self, tile, channels)
    }
}
