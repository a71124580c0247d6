// SPDX-License-Identifier: Apache-2.0
import CKernels

/// out = ((dy − dyMean) · scale + (z − zMean) · gain) + ((x − mean) · invstd · slope + shift), in double: what derivatives of
/// derivatives are made of. Their terms are products of more factors than a gradient's, and may leave the range of float32
/// where their sum does not.
struct Combination<T: Element, L: Layout>: Elementwise {
    typealias Scalar = T
    static var isShort: Bool { false }

    private let dy: Term
    private let z: Term
    private let x: Term
    private let slope: PerChannel<Double, L>
    private let shift: PerChannel<Double, L>

    /// A tensor less the mean of its channel, scaled.
    private struct Term {
        let values: Column<T>
        let mean: PerChannel<Double, L>
        let scale: PerChannel<Double, L>

        @inline(__always)
        func value(_ k: Int) -> SIMD16<Double> { (T.Number.widen(values.load(k)) - mean.at(k)) * scale.at(k) }
    }

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        func term(_ operand: kernel_operand, _ mean: UnsafeRawPointer, _ scale: UnsafeRawPointer) -> Term {
            Term(
                values: Column(operand, tile, strip), mean: PerChannel(mean, tile, strip),
                scale: PerChannel(scale, tile, strip))
        }
        dy = term(tile.dy, channels.dy_mean, channels.scale)
        z = term(tile.z, channels.z_mean, channels.gain)
        x = term(tile.x, channels.mean, channels.invstd)
        slope = PerChannel(channels.slope, tile, strip)
        shift = PerChannel(channels.shift, tile, strip)
    }

    @inline(__always)
    func prefetch(_ k: Int) {
        dy.values.prefetch(k)
        z.values.prefetch(k)
        x.values.prefetch(k)
    }

    @inline(__always)
    func value(_ k: Int) -> SIMD16<T.Number> {
        T.Number.narrow((dy.value(k) + z.value(k)) + (x.value(k) * slope.at(k) + shift.at(k)))
    }
}

enum CombinationLoop: ElementLoop {
    static var isLong: Bool { true }

    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        map(Combination<T, L>.self, tile, channels)
    }
}
