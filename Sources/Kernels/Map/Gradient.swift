// SPDX-License-Identifier: Apache-2.0
import CKernels

/// dx = ((dy − mean(dy)) − (x − mean) · slope) · scale, with slope = invstd² · mean(dy · (x − mean)) and
/// scale = gamma · invstd: the gradient through the statistics. The shift, next to nothing, is what the means lost when they
/// were rounded.
struct Gradient<T: Element, L: Layout>: Elementwise {
    typealias Scalar = T
    static var isShort: Bool { hasLoopForEach }
    static var hasSeams: Bool { isShort && T.self == Float.self && L.self == Planes.self }

    private let dy: Centred<T, L>
    private let x: Centred<T, L>
    private let slope: PerChannel<T.Number, L>
    private let shift: PerChannel<T.Number, L>
    private let scale: PerChannel<T.Number, L>

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        dy = Centred(tile.dy, channels.dy_mean, tile, strip)
        x = Centred(tile.x, channels.mean, tile, strip)
        slope = PerChannel(channels.slope, tile, strip)
        shift = PerChannel(channels.shift, tile, strip)
        scale = PerChannel(channels.scale, tile, strip)
    }

    @inline(__always)
    func prefetch(_ k: Int) {
        dy.prefetch(k)
        x.prefetch(k)
    }

    @inline(__always)
    func value(_ k: Int) -> SIMD16<T.Number> { ((dy.value(k) - x.value(k) * slope.at(k)) + shift.at(k)) * scale.at(k) }
}

enum GradientLoop: ElementLoop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        if L.self == Rows.self && T.self == Float.self && hasPanels && tile.panel > 0 {
            mapPanels(Gradient<T, RowsDown>.self, tile, channels)
        } else {
            map(Gradient<T, L>.self, tile, channels)
        }
    }
}
