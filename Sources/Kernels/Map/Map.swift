// SPDX-License-Identifier: Apache-2.0
import CKernels

/// The output of one vector of a strip.
protocol Elementwise {
    associatedtype Scalar: Element
    /// True if its loop is worth having twice, once for streaming.
    static var isShort: Bool { get }
    /// True if a vector of planes may belong to two channels, and its loop is worth a case for that.
    static var hasSeams: Bool { get }
    init(_ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip)
    func prefetch(_ k: Int)
    func value(_ k: Int) -> SIMD16<Scalar.Number>
}

extension Elementwise {
    static var hasSeams: Bool { false }
}

/// The loop that writes tensors in the order of memory. A vector is read whole before it is written, so `out` may be
/// one of the inputs. Streaming writes whole cache lines: a strip begins where one does, and what comes before it and
/// after the last line is written as usual, but for seams. It goes with asking early for what is read next, as both are for
/// tensors that no cache holds; without it, short loops ask early for what they will write.
@inline(__always)
func map<F: Elementwise>(_: F.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
    if !F.isShort {
        write(F.self, tile, channels, streams: tile.streams != 0)
    } else if tile.streams != 0 {
        write(F.self, tile, channels, streams: true)
    } else {
        write(F.self, tile, channels, streams: false)
    }
    if tile.streams != 0 { vector_stream_end() }
}

@inline(__always)
private func write<F: Elementwise>(_: F.Type, _ tile: kernel_tile, _ channels: kernel_channels, streams: Bool) {
    let hasSeams = streams && F.hasSeams && tile.pitch == tile.length && tile.length >= laneCount
    for run in 0..<tile.runs {
        var written = 0
        for segment in 0..<tile.segments {
            func strip(_ column: Int, _ count: Int, _ lanes: Int) -> Strip {
                Strip(run: run, segment: segment, column: column, count: count, lanes: lanes)
            }
            var column = written
            written = 0
            if column == 0 && (streams || tile.aligns != 0) {
                let start = Column<F.Scalar>(tile.out, tile, strip(0, 0, laneCount)).base
                column = min(elementsToLine(start, tile.element), tile.length)
                if column > 0 { writeAny(F.self, tile, channels, strip(0, 1, column)) }
            }
            let count = (tile.length - column) / laneCount
            write(F.self, tile, channels, strip(column, count, laneCount), streams: streams)
            column += count * laneCount
            if hasSeams && column < tile.length && segment + 1 < tile.segments {
                written = writeSeam(F.self, tile, channels, strip(column, 1, laneCount))
            } else if column < tile.length {
                writeAny(F.self, tile, channels, strip(column, 1, tile.length - column))
            }
        }
    }
}

@inline(__always)
private func write<F: Elementwise>(
    _: F.Type, _ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip, streams: Bool
) {
    if F.isShort {
        writeInline(F.self, tile, channels, strip, streams: streams)
    } else {
        writeStrip(F.self, tile, channels, strip, streams: streams)
    }
}

@inline(__always)
private func writeInline<F: Elementwise>(
    _: F.Type, _ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip, streams: Bool
) {
    let formula = F(tile, channels, strip)
    let out = Column<F.Scalar>(tile.out, tile, strip)
    for k in 0..<strip.count {
        if streams {
            formula.prefetch(k)
        } else if F.isShort {
            out.prefetchOutput(k, tile)
        }
        out.store(formula.value(k), k, streams: streams)
    }
}

/// Any strip of a long formula, whose loop is there once.
@inline(never)
private func writeStrip<F: Elementwise>(
    _: F.Type, _ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip, streams: Bool
) {
    writeInline(F.self, tile, channels, strip, streams: streams)
}

@inline(__always)
private func writeAny<F: Elementwise>(_: F.Type, _ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
    if F.isShort {
        writePart(F.self, tile, channels, strip)
    } else {
        writeStrip(F.self, tile, channels, strip, streams: false)
    }
}

/// A vector that is not full. Out of line, once for all the places that have one: they would be half of the code.
@inline(never)
private func writePart<F: Elementwise>(_: F.Type, _ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip) {
    writeInline(F.self, tile, channels, strip, streams: false)
}

/// The end of one plane and the start of the next as one vector; gives the elements of the next. A line in two parts, written
/// between lines that go past the caches, costs more than a plane of 14×14 does (benchmarks/NOTES.md).
@inline(never)
private func writeSeam<F: Elementwise>(_: F.Type, _ tile: kernel_tile, _ channels: kernel_channels, _ end: Strip) -> Int
{
    let rest = tile.length - end.column
    let next = Strip(run: end.run, segment: end.segment + 1, column: -rest, count: 1, lanes: laneCount)
    let vector = F.Scalar.Number.pick(
        1 << UInt32(rest) - 1, F(tile, channels, end).value(0), F(tile, channels, next).value(0))
    Column<F.Scalar>(tile.out, tile, end).store(vector, 0, streams: true)
    return laneCount - rest
}

/// Elements up to the next start of a cache line, or of a vector that is shorter than one.
@inline(__always)
func elementsToLine<T: Element>(_ address: UnsafeMutablePointer<T>, _ kind: kernel_element) -> Int {
    let size = MemoryLayout<T>.size * T.units(kind)
    let bytes = UInt(min(64, laneCount * size))
    return Int((0 &- UInt(bitPattern: address)) & (bytes - 1)) / size
}
