// SPDX-License-Identifier: Apache-2.0
import CKernels

/// dz = g, what of dy passes the activation, and dx as of Gradient.swift: with g · gain for dy, and what goes through the
/// statistics by the position's weight. Without weights and gain the bits are the same.
struct ActivatedGradient<T: Element, L: Layout, K: EpilogueKind>: Elementwise {
    typealias Scalar = T
    static var isShort: Bool { false }

    private let values: ActivationGradient<T, L, K>
    private let dz: Column<T>?
    private let dyMean: PerChannel<T.Number, L>
    private let slope: PerChannel<T.Number, L>
    private let shift: PerChannel<T.Number, L>
    private let scale: PerChannel<T.Number, L>
    private let gain: PerChannel<T.Number, L>
    private let epilogue: kernel_epilogue
    private let weighs: Bool

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        values = ActivationGradient(tile, channels, strip, reduces: false)
        dz = tile.dz.base == nil ? nil : Column(tile.dz, tile, strip)
        dyMean = PerChannel(channels.dy_mean, tile, strip)
        slope = PerChannel(channels.slope, tile, strip)
        shift = PerChannel(channels.shift, tile, strip)
        scale = PerChannel(channels.scale, tile, strip)
        gain = PerChannel(channels.gain, tile, strip)
        epilogue = tile.epilogue.pointee
        weighs = !K.isClip && tile.weights.base != nil
    }

    @inline(__always)
    func prefetch(_ k: Int) { values.prefetch(k) }

    @inline(__always)
    func value(_ k: Int) -> SIMD16<T.Number> {
        let values = values.at(k)
        dz?.store(values.g, k, streams: false)
        if !K.isClip && epilogue.frozen != 0 { return masked(values.g * scale.at(k), values) }
        let g = K.isClip ? values.g : values.g * gain.at(k)
        if !weighs { return (((g - dyMean.at(k)) - values.centred * slope.at(k)) + shift.at(k)) * scale.at(k) }
        // At weight 0 x has no influence, even if it is NaN.
        let w = values.weight
        let through = T.Number.above(w, .zero, values.centred * (w * slope.at(k)), .zero)
        return masked((((g - w * dyMean.at(k)) - through) + w * shift.at(k)) * scale.at(k), values)
    }

    /// dx, or what it is at a position of weight 0.
    @inline(__always)
    private func masked(_ dx: SIMD16<T.Number>, _ values: ActivationGradient<T, L, K>.Values) -> SIMD16<T.Number> {
        guard weighs, epilogue.masked != .normalize else { return dx }
        return T.Number.above(values.weight, .zero, dx, epilogue.masked == .keep ? values.dy : .zero)
    }
}

enum ActivatedGradientLoop: ElementLoop {
    static var isLong: Bool { true }

    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        map(ActivatedGradient<T, L, Everything>.self, tile, channels)
    }
}

enum ClippedGradientLoop: ElementLoop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        map(ActivatedGradient<T, L, Clips>.self, tile, channels)
    }
}
