// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Every loop of this module. A loop that is missing here does not compile for any instruction set.
func fill(_ table: UnsafeMutablePointer<kernel_table>) {
    table.pointee = kernel_table(
        deviation_sums: { run(DeviationSumsLoop.self, $0!.pointee, $1!.pointee) },
        gradient_sums: { run(GradientSumsLoop.self, $0!.pointee, $1!.pointee) },
        normalize: { run(NormalizeLoop.self, $0!.pointee, $1!.pointee) },
        gradient: { run(GradientLoop.self, $0!.pointee, $1!.pointee) })
}

/// A loop for any element type and layout; `run` picks, the one place that lists them all.
private protocol Loop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels)
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
