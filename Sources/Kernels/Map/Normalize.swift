// SPDX-License-Identifier: Apache-2.0
import CKernels

/// y = (x − mean) · scale + shift, where scale is gamma · invstd and shift is beta.
struct Normalize<T: Element, L: Layout>: Elementwise {
    typealias Scalar = T
    static var isShort: Bool { hasLoopForEach }
    static var hasSeams: Bool { isShort && T.self == Float.self && L.self == Planes.self }

    private let x: Centred<T, L>
    private let scale: PerChannel<T.Number, L>
    private let shift: PerChannel<T.Number, L>

    @inline(__always)
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
        x = Centred(tile.x, channels.mean, tile, strip)
        scale = PerChannel(channels.scale, tile, strip)
        shift = PerChannel(channels.shift, tile, strip)
    }

    @inline(__always)
    func prefetch(_ k: Int) { x.prefetch(k) }

    @inline(__always)
    func value(_ k: Int) -> SIMD16<T.Number> { x.value(k) * scale.at(k) + shift.at(k) }
}

enum NormalizeLoop: ElementLoop {
    static func run<T: Element, L: Layout>(_: T.Type, _: L.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
        if L.self == Rows.self && T.self == Float.self && hasPanels && tile.panel > 0 {
            mapPanels(Normalize<T, RowsDown>.self, tile, channels)
        } else {
            map(Normalize<T, L>.self, tile, channels)
        }
    }
}
