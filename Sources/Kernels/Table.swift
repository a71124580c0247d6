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

/// A loop for any layout, of the elements that it is for.
private protocol Loop {
    static func run<L: Layout>(_: L.Type, _ tile: kernel_tile, _ channels: kernel_channels)
}

@inline(__always)
private func run<K: Loop>(_: K.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
    switch tile.layout {
    case _ where !hasLoopForEach: K.run(AnyLayout.self, tile, channels)
    case KERNEL_PLANES: K.run(Planes.self, tile, channels)
    default: K.run(Rows.self, tile, channels)
    }
}

/// For all elements.
private protocol ElementLoop: Loop {
    /// Too long to be there once for each element of float32 numbers.
    static var isLong: Bool { get }
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels)
}

extension ElementLoop {
    static var isLong: Bool { false }

    @inline(__always)
    static func run<L: Layout>(_: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        switch tile.element {
        case KERNEL_FLOAT64: run(Double.self, L.self, tile, channels)
        case _ where isLong || !hasLoopForEach: run(AnyFloat.self, L.self, tile, channels)
        case KERNEL_FLOAT32: run(Float.self, L.self, tile, channels)
        case KERNEL_FLOAT16: run(Float16Bits.self, L.self, tile, channels)
        default: run(BFloat16Bits.self, L.self, tile, channels)
        }
    }
}

/// For elements that are numbers in memory as in registers.
private protocol ArithmeticLoop: Loop {
    static func run<T: Arithmetic, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels)
}

extension ArithmeticLoop {
    @inline(__always)
    static func run<L: Layout>(_: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        switch tile.element {
        case KERNEL_FLOAT64: run(Double.self, L.self, tile, channels)
        default: run(Float.self, L.self, tile, channels)
        }
    }
}

/// For elements whose products are exact in double.
private protocol FloatLoop: Loop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels)
    where T.Number == Float
}

extension FloatLoop {
    @inline(__always)
    static func run<L: Layout>(_: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        switch tile.element {
        case _ where !hasLoopForEach: run(AnyFloat.self, L.self, tile, channels)
        case KERNEL_FLOAT32: run(Float.self, L.self, tile, channels)
        case KERNEL_FLOAT16: run(Float16Bits.self, L.self, tile, channels)
        default: run(BFloat16Bits.self, L.self, tile, channels)
        }
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

private enum NormalizeLoop: ElementLoop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        map(Normalize<T, L>.self, tile, channels)
    }
}

private enum GradientLoop: ElementLoop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        map(Gradient<T, L>.self, tile, channels)
    }
}

private enum CombinationLoop: ElementLoop {
    static var isLong: Bool { true }

    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        map(Combination<T, L>.self, tile, channels)
    }
}

private enum WeightedSumsLoop: ElementLoop {
    static var isLong: Bool { true }

    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        reduce(WeightedSums<T, L>.self, tile, channels)
    }
}

private enum ActivatedSumsLoop: ElementLoop {
    static var isLong: Bool { true }

    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        reduce(ActivatedSums<T, L>.self, tile, channels)
    }
}

private enum ActivatedLoop: ElementLoop {
    static var isLong: Bool { true }

    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        map(Activated<T, L, Everything>.self, tile, channels)
    }
}

private enum ActivatedGradientLoop: ElementLoop {
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

private enum ClippedLoop: ElementLoop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        map(Activated<T, L, Clips>.self, tile, channels)
    }
}

private enum ClippedGradientLoop: ElementLoop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        map(ActivatedGradient<T, L, Clips>.self, tile, channels)
    }
}
