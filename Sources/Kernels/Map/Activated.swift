// SPDX-License-Identifier: Apache-2.0
import CKernels

/// y = activation((x − mean) · scale + shift + z); at positions of weight 0, what is wanted there.
struct Activated<T: Element, L: Layout, K: EpilogueKind>: Elementwise {
    typealias Scalar = T
    static var isShort: Bool { K.isClip }
    static var hasSeams: Bool { isShort && T.self == Float.self && L.self == Planes.self }

    private let x: Column<T>
    private let z: Column<T>
    private let weights: PositionWeights<T.Number, L>?
    private let mean: PerChannel<T.Number, L>
    private let scale: PerChannel<T.Number, L>
    private let shift: PerChannel<T.Number, L>
    private let activation: Activation<T.Number, K>
    private let masked: kernel_masked

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        x = Column(tile.x, tile, strip)
        z = Column(residual: tile, strip)
        weights = K.isClip || tile.weights.base == nil ? nil : PositionWeights(tile, strip)
        mean = PerChannel(channels.mean, tile, strip)
        scale = PerChannel(channels.scale, tile, strip)
        shift = PerChannel(channels.shift, tile, strip)
        activation = Activation(tile.epilogue.pointee)
        masked = tile.epilogue.pointee.masked
    }

    @inline(__always)
    func prefetch(_ k: Int) {
        x.prefetch(k)
        z.prefetch(k)
    }

    @inline(__always)
    func value(_ k: Int) -> SIMD16<T.Number> {
        let raw = x.load(k)
        let u = ((raw - mean.at(k)) * scale.at(k) + shift.at(k)) + z.load(k)
        let y = activation.value(u)
        guard !K.isClip, let weights, masked != .normalize else { return y }
        return T.Number.above(weights.at(k), .zero, y, masked == .keep ? raw : .zero)
    }
}

enum ActivatedLoop: ElementLoop {
    static var isLong: Bool { true }

    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        map(Activated<T, L, Everything>.self, tile, channels)
    }
}

enum ClippedLoop: ElementLoop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        map(Activated<T, L, Clips>.self, tile, channels)
    }
}
