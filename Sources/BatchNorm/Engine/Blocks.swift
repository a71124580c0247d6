// SPDX-License-Identifier: Apache-2.0

/// The partition of a channel's values on which every reduction is built: each block is summed by itself, then the blocks
/// are put together in order. It depends on the shape, on how many tensors are read, and on whether they are dense, so that
/// neither threads nor caches have a say in the bits.
struct Blocks {
    /// Values of one channel in a block, about. A block ends with a fold of sixteen lanes and a merge (some 50 cycles
    /// against the 4,000 that its values take), and loses at most log₂ of its length in bits (see Moments.swift).
    private static let planeValues = 16384
    /// Rows in a block, as every channel has a merge per block; and values of all channels, where rows are short.
    private static let rows = 1024
    private static let rowValues = 65536
    /// Planes up to this long are summed as rows, each of their elements a column, and the columns of a channel added up:
    /// two vectors of which the second is nearly empty would cost more.
    private static let shortPlane = 32

    let count: Int
    /// True if the values are summed as rows, and as which columns. Rows that do not fill the last run are a block of their
    /// own, the last one, with one row per run.
    let isRows: Bool
    let columns: Columns
    /// Runs of rows that are summed before the next column. Sums go to memory and back once per band; so many cache lines
    /// of a column, and as many of the next band's, must find room in the few places that a first-level cache has for
    /// addresses a power of two apart. And no lane adds up more than 1,024 values at a time, as in planes, however narrow the
    /// rows: of equal values all roundings go one way.
    let band: Int
    private let outer: Int
    private let inner: Int
    /// Outer indices in a block, or blocks in an outer index: one of the two is 1.
    private let span: Int
    private let pieces: Int

    /// `inputs`: tensors that a reduction reads. `dense`: whether they have nothing between their rows. `isWeighted`: whether
    /// their positions have weights, which do not repeat as the columns of a short plane do.
    init(outer: Int, channels: Int, inner: Int, inputs: Int, dense: Bool, isWeighted: Bool = false) {
        self.outer = outer
        self.inner = inner
        isRows = inner <= (isWeighted ? 1 : Blocks.shortPlane)
        let perChannel = isRows ? max(1, inner) : 1
        let width = channels * perChannel
        let rowsPerRun = isRows && dense && width % 16 != 0 && width < 256 ? Blocks.rowsPerRun(width, toFill: 1) : 1
        columns = Columns(perChannel: perChannel, rowsPerRun: rowsPerRun)
        band = min(1024, max(4, 4096 / (inputs * inputs * width * rowsPerRun)))
        let rows = max(Blocks.rows, Blocks.rowValues / width) / rowsPerRun * rowsPerRun
        span = inner == 0 ? 1 : isRows ? rows : max(1, Blocks.planeValues / inner)
        pieces = isRows || span > 1 ? 1 : (inner - 1) / Blocks.planeValues + 1
        let whole = outer - outer % columns.rowsPerRun
        let full = whole == 0 ? 0 : (whole - 1) / span + 1
        count = inner == 0 || outer == 0 ? 0 : (full + (whole < outer ? 1 : 0)) * pieces
    }

    /// The outer and inner indices of a block.
    subscript(block: Int) -> Extent {
        let whole = outer - outer % columns.rowsPerRun
        let first = min(block / pieces * span, whole)
        let start = block % pieces * Blocks.planeValues
        let end = pieces == 1 ? inner : min(start + Blocks.planeValues, inner)
        return (first..<(first == whole ? outer : min(first + span, whole)), start..<end)
    }

    /// Values of one channel in a block, and in all blocks before it.
    func values(_ block: Int) -> (own: Int, before: Int) {
        let (outer, inner) = self[block]
        return (outer.count * inner.count, outer.lowerBound * self.inner + inner.lowerBound)
    }

    /// True if so many threads have about as much to do: three quarters of the time of the one with most, or more.
    func isShared(by threads: Int) -> Bool {
        let most = threads * span * ((count - 1) / threads + 1)
        return outer >= most - most / 4
    }

    /// The columns of one block.
    func columns(of block: Int) -> Columns {
        let isWhole = self[block].outer.count % columns.rowsPerRun == 0
        return Columns(perChannel: columns.perChannel, rowsPerRun: isWhole ? columns.rowsPerRun : 1)
    }

    /// Rows to lay side by side until a run has so many elements and ends with a whole vector; 1 if that takes too many.
    static func rowsPerRun(_ width: Int, toFill elements: Int, inUnitsOf columns: Int = 16) -> Int {
        // columns / gcd(columns, width), of a power of two
        let unit = columns >> min(width.trailingZeroBitCount, columns.trailingZeroBitCount)
        let rows = (elements - 1) / (unit * width) + 1
        return width > 512 ? 1 : rows * unit
    }
}
