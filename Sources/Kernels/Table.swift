// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Every loop of this module. A loop that is missing here does not compile for any instruction set.
func fill(_ table: UnsafeMutablePointer<kernel_table>) {
    table.pointee = kernel_table(
        power_sums: { run(PowerSumsLoop.self, $0!.pointee, $1!.pointee) },
        deviation_sums: { run(DeviationSumsLoop.self, $0!.pointee, $1!.pointee) },
        product_sums: { run(ProductSumsLoop.self, $0!.pointee, $1!.pointee) },
        gradient_sums: { run(GradientSumsLoop.self, $0!.pointee, $1!.pointee) },
        normalize: { run(NormalizeLoop.self, $0!.pointee, $1!.pointee) },
        gradient: { run(GradientLoop.self, $0!.pointee, $1!.pointee) },
        combination: { run(CombinationLoop.self, $0!.pointee, $1!.pointee) },
        weighted_sums: { run(WeightedSumsLoop.self, $0!.pointee, $1!.pointee) },
        activated_sums: { run(ActivatedSumsLoop.self, $0!.pointee, $1!.pointee) },
        activated: { run(ActivatedLoop.self, $0!.pointee, $1!.pointee) },
        activated_gradient: { run(ActivatedGradientLoop.self, $0!.pointee, $1!.pointee) },
        clipped_products: hasLoopForEach ? { run(ClippedProductsLoop.self, $0!.pointee, $1!.pointee) } : nil,
        clipped: hasLoopForEach ? { run(ClippedLoop.self, $0!.pointee, $1!.pointee) } : nil,
        clipped_gradient: hasLoopForEach ? { run(ClippedGradientLoop.self, $0!.pointee, $1!.pointee) } : nil,
        write_bits: { tile, bits in
            switch tile!.pointee.element {
            case KERNEL_FLOAT32: writeBits(Float.self, tile!.pointee, bits!)
            case KERNEL_FLOAT64: writeBits(Double.self, tile!.pointee, bits!)
            case KERNEL_FLOAT16: writeBits(Float16Bits.self, tile!.pointee, bits!)
            default: writeBits(BFloat16Bits.self, tile!.pointee, bits!)
            }
        },
        spread: { element, source, channels, columns, target in
            if element == KERNEL_FLOAT32 {
                spread(Float.self, source!, channels, columns, target!)
            } else {
                spread(Double.self, source!, channels, columns, target!)
            }
        })
}

/// A loop and the elements that it is for; `run` picks, the one place that lists them all.
private protocol Loop {
    /// Too long to be there once for each element of float32 numbers.
    static var isLong: Bool { get }
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels)
}

extension Loop {
    static var isLong: Bool { false }
}

/// For elements that are numbers in memory as in registers.
private protocol ArithmeticLoop {
    static func run<T: Arithmetic, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels)
}

/// For elements whose products are exact in double.
private protocol FloatLoop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels)
    where T.Number == Float
}

@inline(__always)
private func run<K: Loop>(_: K.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
    @inline(__always)
    func run<L: Layout>(_: L.Type) {
        switch tile.element {
        case KERNEL_FLOAT64: K.run(Double.self, L.self, tile, channels)
        case _ where K.isLong || !hasLoopForEach: K.run(AnyFloat.self, L.self, tile, channels)
        case KERNEL_FLOAT32: K.run(Float.self, L.self, tile, channels)
        case KERNEL_FLOAT16: K.run(Float16Bits.self, L.self, tile, channels)
        default: K.run(BFloat16Bits.self, L.self, tile, channels)
        }
    }
    switch tile.layout {
    case _ where !hasLoopForEach: run(AnyLayout.self)
    case KERNEL_PLANES: run(Planes.self)
    default: run(Rows.self)
    }
}

@inline(__always)
private func run<K: ArithmeticLoop>(_: K.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
    @inline(__always)
    func run<L: Layout>(_: L.Type) {
        switch tile.element {
        case KERNEL_FLOAT64: K.run(Double.self, L.self, tile, channels)
        default: K.run(Float.self, L.self, tile, channels)
        }
    }
    switch tile.layout {
    case _ where !hasLoopForEach: run(AnyLayout.self)
    case KERNEL_PLANES: run(Planes.self)
    default: run(Rows.self)
    }
}

@inline(__always)
private func run<K: FloatLoop>(_: K.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
    @inline(__always)
    func run<L: Layout>(_: L.Type) {
        switch tile.element {
        case _ where !hasLoopForEach: K.run(AnyFloat.self, L.self, tile, channels)
        case KERNEL_FLOAT32: K.run(Float.self, L.self, tile, channels)
        case KERNEL_FLOAT16: K.run(Float16Bits.self, L.self, tile, channels)
        default: K.run(BFloat16Bits.self, L.self, tile, channels)
        }
    }
    switch tile.layout {
    case _ where !hasLoopForEach: run(AnyLayout.self)
    case KERNEL_PLANES: run(Planes.self)
    default: run(Rows.self)
    }
}

private enum PowerSumsLoop: FloatLoop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels)
    where T.Number == Float {
        reduce(PowerSums<T, L>.self, tile, channels)
    }
}

private enum ProductSumsLoop: FloatLoop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels)
    where T.Number == Float {
        reduce(ProductSums<T, L>.self, tile, channels)
    }
}

private enum DeviationSumsLoop: ArithmeticLoop {
    static func run<T: Arithmetic, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        reduce(DeviationSums<T, L>.self, tile, channels)
    }
}

private enum GradientSumsLoop: ArithmeticLoop {
    static func run<T: Arithmetic, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        reduce(GradientSums<T, L>.self, tile, channels)
    }
}

private enum NormalizeLoop: Loop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        map(Normalize<T, L>.self, tile, channels)
    }
}

private enum GradientLoop: Loop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        map(Gradient<T, L>.self, tile, channels)
    }
}

private enum CombinationLoop: Loop {
    static var isLong: Bool { true }

    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        map(Combination<T, L>.self, tile, channels)
    }
}

private enum WeightedSumsLoop: Loop {
    static var isLong: Bool { true }

    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        reduce(WeightedSums<T, L>.self, tile, channels)
    }
}

private enum ActivatedSumsLoop: Loop {
    static var isLong: Bool { true }

    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        reduce(ActivatedSums<T, L>.self, tile, channels)
    }
}

private enum ActivatedLoop: Loop {
    static var isLong: Bool { true }

    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        map(Activated<T, L, Everything>.self, tile, channels)
    }
}

private enum ActivatedGradientLoop: Loop {
    static var isLong: Bool { true }

    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        map(ActivatedGradient<T, L, Everything>.self, tile, channels)
    }
}

private enum ClippedProductsLoop: FloatLoop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels)
    where T.Number == Float {
        reduce(ActivatedProducts<T, L>.self, tile, channels)
    }
}

private enum ClippedLoop: Loop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        map(Activated<T, L, Clips>.self, tile, channels)
    }
}

private enum ClippedGradientLoop: Loop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        map(ActivatedGradient<T, L, Clips>.self, tile, channels)
    }
}
