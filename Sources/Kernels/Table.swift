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
        spread: { element, source, channels, columns, target in
            if element == KERNEL_FLOAT32 {
                spread(Float.self, source!, channels, columns, target!)
            } else {
                spread(Double.self, source!, channels, columns, target!)
            }
        })
}

/// A loop for any element type and layout, or for any layout of float32; `run` picks, the one place that lists them all.
private protocol Loop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels)
}

private protocol Float32Loop {
    static func run<L: Layout>(_: L.Type, _ tile: kernel_tile, _ channels: kernel_channels)
}

@inline(__always)
private func run<K: Loop>(_: K.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
    switch (tile.element, tile.layout) {
    case (KERNEL_FLOAT32, KERNEL_PLANES): K.run(Float.self, Planes.self, tile, channels)
    case (KERNEL_FLOAT32, _): K.run(Float.self, Rows.self, tile, channels)
    case (_, KERNEL_PLANES): K.run(Double.self, Planes.self, tile, channels)
    default: K.run(Double.self, Rows.self, tile, channels)
    }
}

@inline(__always)
private func run<K: Float32Loop>(_: K.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
    if tile.layout == KERNEL_PLANES {
        K.run(Planes.self, tile, channels)
    } else {
        K.run(Rows.self, tile, channels)
    }
}

private enum PowerSumsLoop: Float32Loop {
    static func run<L: Layout>(_: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        reduce(PowerSums<L>.self, tile, channels)
    }
}

private enum ProductSumsLoop: Float32Loop {
    static func run<L: Layout>(_: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        reduce(ProductSums<L>.self, tile, channels)
    }
}

private enum DeviationSumsLoop: Loop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        reduce(DeviationSums<T, L>.self, tile, channels)
    }
}

private enum GradientSumsLoop: Loop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
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
