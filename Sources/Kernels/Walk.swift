// SPDX-License-Identifier: Apache-2.0
import CKernels

/// A straight walk through a tile, one vector at a step: `count` steps from the element at (`run`, `column`), `lanes`
/// lanes wide. In planes it goes along a run, in rows down a column of vectors; the loops do not know the difference.
struct Strip {
    let run: Int
    let column: Int
    let count: Int
    let lanes: Int
}

/// What a loop does with each strip.
protocol Walker {
    mutating func visit(_ strip: Strip)
}

/// How a tile is cut into strips, and what a channel is to them.
protocol Layout {
    /// Whether each column of a tile is a channel; otherwise all of the tile is one.
    static var channelPerColumn: Bool { get }
    /// Elements from one step of a strip to the next, in an operand with this many from run to run.
    static func step(_ stride: Int) -> Int
    static func walk(_ tile: kernel_tile, _ walker: inout some Walker)
}

/// Runs that belong to one channel: a strip is a run.
enum Planes: Layout {
    static var channelPerColumn: Bool { false }

    @inline(__always)
    static func step(_ stride: Int) -> Int { laneCount }

    @inline(__always)
    static func walk(_ tile: kernel_tile, _ walker: inout some Walker) {
        let rest = tile.length % laneCount
        for run in 0..<tile.runs {
            walker.visit(Strip(run: run, column: 0, count: tile.length / laneCount, lanes: laneCount))
            if rest != 0 { walker.visit(Strip(run: run, column: tile.length - rest, count: 1, lanes: rest)) }
        }
    }
}

/// Runs that hold one element of each channel: a strip is sixteen channels in a band of runs.
enum Rows: Layout {
    static var channelPerColumn: Bool { true }

    /// A band is read in column order, so each of its runs is a stream of its own: as many as prefetchers follow.
    private static var band: Int { 16 }

    @inline(__always)
    static func step(_ stride: Int) -> Int { stride }

    @inline(__always)
    static func walk(_ tile: kernel_tile, _ walker: inout some Walker) {
        let rest = tile.length % laneCount
        for run in stride(from: 0, to: tile.runs, by: band) {
            let count = min(band, tile.runs - run)
            for column in stride(from: 0, to: tile.length - rest, by: laneCount) {
                walker.visit(Strip(run: run, column: column, count: count, lanes: laneCount))
            }
            if rest != 0 { walker.visit(Strip(run: run, column: tile.length - rest, count: count, lanes: rest)) }
        }
    }
}

/// One operand along a strip.
struct Column<T: Element, L: Layout> {
    private let base: UnsafeMutablePointer<T>
    private let step: Int
    private let lanes: Int

    @inline(__always)
    init(_ operand: kernel_operand, _ strip: Strip) {
        base = operand.base.assumingMemoryBound(to: T.self) + (strip.run * operand.stride + strip.column)
        step = L.step(operand.stride)
        lanes = strip.lanes
    }

    @inline(__always)
    func load(_ k: Int, fill: SIMD16<T> = .zero) -> SIMD16<T> {
        loadLanes(UnsafePointer(base + k * step), lanes: lanes, fill: fill)
    }

    @inline(__always)
    func store(_ vector: SIMD16<T>, _ k: Int) {
        storeLanes(vector, to: base + k * step, lanes: lanes)
    }
}

/// A value per channel, as the lanes of a strip want it.
@inline(__always)
func perLane<T: Element, L: Layout>(_ values: UnsafePointer<T>, _ strip: Strip, _: L.Type) -> SIMD16<T> {
    L.channelPerColumn ? loadLanes(values + strip.column, lanes: strip.lanes) : SIMD16(repeating: values[0])
}
