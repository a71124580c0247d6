// SPDX-License-Identifier: Apache-2.0
import CKernels

/// The map of some channels, by the loops and what they take for coefficients.
extension Sweep {
    /// No more channels at a time than have their coefficients in a first-level cache.
    @inline(never)
    func apply(_ channels: Range<Int>, _ extent: Extent, worker: Int) {
        guard map != nil, !extent.outer.isEmpty, !extent.inner.isEmpty else { return }
        var next = channels.lowerBound
        while next < channels.upperBound {
            let end = min(next + plan.mapped, channels.upperBound)
            let extreme = arrays.firstExtreme(next..<end)
            if next < extreme { applyLoop(next..<extreme, extent, worker) }
            if extreme < end { applyInDouble(extreme, extent, worker) }
            next = extreme < end ? extreme + 1 : end
        }
    }

    @inline(never)
    private func applyLoop(_ channels: Range<Int>, _ extent: Extent, _ worker: Int) {
        // Coefficients are worth repeating only for so many rows.
        let repeats = extent.outer.count >= Plan.fewPlanes
        let isRows = geometry.inner == 1 || (plan.mapsRows && repeats)
        let isFlat = plan.isFlat && isRows && channels.count == geometry.channels
        let columns = Columns(perChannel: plan.columns.perChannel, rowsPerRun: isFlat ? plan.columns.rowsPerRun : 1)
        var tile = tile(channels, extent, isRows: isRows, rowsPerRun: 1)
        if mapsDy { tile.x = tile.dy }
        let phase = isRows && repeats && (isFlat || isRegular(tile)) ? phase(tile.out) : 0
        var coefficients = arrays.coefficients
        var first = channels.lowerBound
        if isRows && (columns.areRepeated || phase != 0) {
            coefficients = arrays.workspace(worker)
            first = phase
            if hasPagedRows, let rows = tile.out.base {
                first += coefficients.distance(from: rows, arrays: plan.coefficients, at: first)
            }
            arrays.coefficients.repeatEach(
                channels, arrays: plan.coefficients, columns, beyond: geometry.lineElements, by: kernels,
                in: coefficients, at: first)
        }
        if isFlat {
            applyFlat(tile, tile.length * columns.rowsPerRun, coefficients, first, phase)
        } else {
            tile.aligns = phase == 0 ? 0 : 1
            tile.panel = panel(tile)
            tile.out = output(tile)
            var channels = coefficients.at(first)
            map.unsafelyUnwrapped(&tile, &channels)
        }
    }

    /// Sets the distance at which the output is asked for: two rows on in panels, some lines on in long runs, and else the next
    /// run, if there are a few.
    private func output(_ tile: kernel_tile) -> kernel_operand {
        var out = tile.out
        let run = tile.layout == .rows ? tile.length : tile.segments * tile.pitch
        let isLong = run == out.stride || run * geometry.elementSize >= Plan.longRun
        let nextRun = tile.runs >= Plan.fewPlanes ? out.stride : 0
        let ahead = tile.panel > 0 ? 2 * out.stride : isLong ? Plan.outputLines * geometry.lineElements : nextRun
        out.prefetch = plan.prefetchesOutput ? ahead : 0
        return out
    }

    /// Rows without gaps are one long run, whose coefficients come again after so many rows: it is cut anew into runs that
    /// begin where cache lines do.
    private func applyFlat(
        _ rows: kernel_tile, _ length: Int, _ coefficients: Coefficients, _ first: Int, _ phase: Int
    ) {
        let elements = rows.runs * rows.length
        let line = geometry.lineElements
        let head = min((line - phase) % line, elements)
        let whole = (elements - head) / length
        let tail = head + whole * length
        applyRuns(1, head, of: rows, from: 0, coefficients, first)
        applyRuns(whole, length, of: rows, from: head, coefficients, first + head)
        applyRuns(1, elements - tail, of: rows, from: tail, coefficients, first + head)
    }

    @inline(never)
    private func applyRuns(
        _ runs: Int, _ length: Int, of rows: kernel_tile, from start: Int, _ coefficients: Coefficients, _ first: Int
    ) {
        if runs * length == 0 { return }
        var tile = rows
        tile.runs = runs
        tile.length = length
        tile.x = rows.x.from(start, length, geometry.elementSize)
        tile.dy = rows.dy.from(start, length, geometry.elementSize)
        tile.out = rows.out.from(start, length, geometry.elementSize)
        tile.z = rows.z.from(start, length, geometry.elementSize)
        tile.dz = rows.dz.from(start, length, geometry.elementSize)
        tile.bits.first += start
        tile.bits.stride = length
        tile.panel = panel(tile)
        tile.out = output(tile)
        var channels = coefficients.at(first)
        map.unsafelyUnwrapped(&tile, &channels)
    }

    /// Elements from the start of a cache line to that of the tensor. NumPy's arrays begin a quarter of a line behind: vectors
    /// that straddle two lines take twice as long to be stored, and nothing is won if those of the coefficients straddle
    /// them instead.
    private func phase(_ out: kernel_operand) -> Int {
        Int(bitPattern: out.base) / geometry.elementSize % geometry.lineElements
    }

    /// Rows of a panel: all of them, if it is as wide as they are.
    private func panel(_ tile: kernel_tile) -> Int {
        if !plan.usesPanels || tile.layout != .rows || tile.out.stride % geometry.lineElements != 0 { return 0 }
        return tile.length == Plan.panelColumns ? tile.runs : Plan.panelRows
    }

    /// True if all runs begin alike, and are long enough for that to matter.
    private func isRegular(_ tile: kernel_tile) -> Bool {
        tile.out.stride % geometry.lineElements == 0 && tile.length >= 256
    }
}
