// SPDX-License-Identifier: Apache-2.0
import CKernels

/// A loop for any layout, of the elements that it is for.
protocol Loop {
    static func run<L: Layout>(_: L.Type, _ tile: kernel_tile, _ channels: kernel_channels)
}

@inline(__always)
func run<K: Loop>(_: K.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
    switch tile.layout {
    case _ where !hasLoopForEach: K.run(AnyLayout.self, tile, channels)
    case .planes: K.run(Planes.self, tile, channels)
    case .rows: K.run(Rows.self, tile, channels)
    }
}

/// For all elements.
protocol ElementLoop: Loop {
    /// Too long to be there once for each element of float32 numbers.
    static var isLong: Bool { get }
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels)
}

extension ElementLoop {
    static var isLong: Bool { false }

    @inline(__always)
    static func run<L: Layout>(_: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        switch tile.element {
        case .float64: run(Double.self, L.self, tile, channels)
        case _ where isLong || !hasLoopForEach: run(AnyFloat.self, L.self, tile, channels)
        case .float32: run(Float.self, L.self, tile, channels)
        case .float16: run(Float16Bits.self, L.self, tile, channels)
        case .bfloat16: run(BFloat16Bits.self, L.self, tile, channels)
        }
    }
}

/// For elements that are numbers in memory as in registers.
protocol ArithmeticLoop: Loop {
    static func run<T: Arithmetic, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels)
}

extension ArithmeticLoop {
    @inline(__always)
    static func run<L: Layout>(_: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        switch tile.element {
        case .float64: run(Double.self, L.self, tile, channels)
        case .float32: run(Float.self, L.self, tile, channels)
        case .float16, .bfloat16: preconditionFailure("the loop is of numbers as they are in memory")
        }
    }
}

/// For elements whose products are exact in double.
protocol FloatLoop: Loop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels)
    where T.Number == Float
}

extension FloatLoop {
    @inline(__always)
    static func run<L: Layout>(_: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        switch tile.element {
        case _ where !hasLoopForEach: run(AnyFloat.self, L.self, tile, channels)
        case .float32: run(Float.self, L.self, tile, channels)
        case .float16: run(Float16Bits.self, L.self, tile, channels)
        case .bfloat16: run(BFloat16Bits.self, L.self, tile, channels)
        case .float64: notOfFloats()
        }
    }
}
