// SPDX-License-Identifier: Apache-2.0
import CKernels

/// A straight walk through a tile, one vector at a step: `count` steps from an element, `lanes` lanes wide.
struct Strip {
    let run: Int
    let segment: Int
    /// The element's place in the segment.
    let column: Int
    let count: Int
    let lanes: Int
}

/// The place of a channel in a tile. The loops know no other difference.
protocol Layout {
    /// True if each column of a tile is a channel; otherwise each segment is one.
    static func channelPerColumn(_ layout: kernel_layout) -> Bool
    /// True if a strip runs down a column, so that its channels are the same at every step.
    static var runsDown: Bool { get }
}

extension Layout {
    static var runsDown: Bool { false }
}

/// NCHW: a channel is a segment of every run.
enum Planes: Layout {
    @inline(__always)
    static func channelPerColumn(_ layout: kernel_layout) -> Bool { false }
}

/// NHWC and NC: a column of all runs is a channel, or an element of a short plane.
enum Rows: Layout {
    @inline(__always)
    static func channelPerColumn(_ layout: kernel_layout) -> Bool { true }
}

/// Rows, of which a strip takes the same vector of each.
enum RowsDown: Layout {
    static var runsDown: Bool { true }

    @inline(__always)
    static func channelPerColumn(_ layout: kernel_layout) -> Bool { true }
}

/// Either, as the tile says: for loops that are too long to be there once for each.
enum AnyLayout: Layout {
    @inline(__always)
    static func channelPerColumn(_ layout: kernel_layout) -> Bool { layout == .rows }
}

/// One operand along a strip.
struct Column<T: Element> {
    let base: UnsafeMutablePointer<T>
    private let kind: kernel_element
    private let step: Int
    private let lanes: Int
    private let distance: Int

    /// Steps go `step` elements forward.
    @inline(__always)
    init(_ operand: kernel_operand, _ tile: kernel_tile, _ strip: Strip, step: Int = laneCount) {
        kind = tile.element
        let units = T.units(kind)
        let offset = strip.run * operand.stride + strip.segment * tile.pitch + strip.column
        base = operand.base.assumingMemoryBound(to: T.self) + offset * units
        self.step = step * units
        lanes = strip.lanes
        distance = (strip.run + 1 < tile.runs ? operand.prefetch : operand.prefetch_last) * units
    }

    /// The same vector at every step.
    @inline(__always)
    init(constant: UnsafeRawPointer, _ tile: kernel_tile, _ strip: Strip) {
        kind = tile.element
        base = UnsafeMutableRawPointer(mutating: constant).assumingMemoryBound(to: T.self)
        step = 0
        lanes = strip.lanes
        distance = 0
    }

    /// Asks for the cache line that will take this step's place.
    @inline(__always)
    func prefetch(_ k: Int) { vector_prefetch(base + (k * step + distance)) }

    @inline(__always)
    func prefetchSoon(_ k: Int) { vector_prefetch_soon(base + (k * step + distance)) }

    /// Asks for the line that will be written some elements on.
    @inline(__always)
    func prefetchOutput(_ k: Int, _ tile: kernel_tile) {
        vector_prefetch_soon(base + (k * step + tile.out.prefetch * T.units(kind)))
    }

    @inline(__always)
    func load(_ k: Int, fill: SIMD16<T.Number> = .zero) -> SIMD16<T.Number> {
        T.load(UnsafePointer(base + k * step), kind, lanes: lanes, fill: fill)
    }

    @inline(__always)
    func store(_ vector: SIMD16<T.Number>, _ k: Int, streams: Bool) {
        T.store(vector, to: base + k * step, kind, lanes: lanes, streams: streams)
    }
}

/// A value per channel, along a strip: another vector at every step for rows, and the same at every step for planes and for
/// rows that are taken down their columns. That one is loaded once, but for any layout: as the output may be anywhere, the
/// compiler would load it at every step. The arrays of the engine go on far enough for no strip to
/// be too short.
struct PerChannel<T: Arithmetic, L: Layout> {
    private let values: UnsafePointer<T>
    private let layout: kernel_layout
    private let constant: SIMD16<T>

    @inline(__always)
    init(_ values: UnsafeRawPointer, _ tile: kernel_tile, _ strip: Strip) {
        layout = tile.layout
        let place = L.channelPerColumn(layout) ? strip.column : strip.segment
        self.values = values.assumingMemoryBound(to: T.self) + place
        let one = self.values.pointee
        constant = L.runsDown ? loadLanes(self.values) : L.self == Planes.self ? SIMD16(repeating: one) : .zero
    }

    @inline(__always)
    func at(_ k: Int) -> SIMD16<T> {
        if L.runsDown || L.self == Planes.self { return constant }
        return L.channelPerColumn(layout) ? loadLanes(values + k * laneCount) : SIMD16(repeating: values.pointee)
    }
}
