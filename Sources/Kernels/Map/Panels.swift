// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Writes rows by panels: four vectors side by side, down so many rows, then the next four. Their coefficients stay in
/// registers, where a walk along the rows loads as many of them as it loads values, and loads three to five times what it
/// stores. All runs begin at the same place of a cache line. Where a panel is a whole run, the order is that of memory; else
/// it is for tensors that are in a cache, as the processor does not foresee the way through others (benchmarks/NOTES.md).
@inline(__always)
func mapPanels<F: Elementwise>(_: F.Type, _ tile: kernel_tile, _ channels: kernel_channels) {
    if tile.streams != 0 {
        writePanels(F.self, tile, channels, streams: true)
        vector_stream_end()
    } else {
        writePanels(F.self, tile, channels, streams: false)
    }
}

@inline(__always)
private func writePanels<F: Elementwise>(_: F.Type, _ tile: kernel_tile, _ channels: kernel_channels, streams: Bool) {
    let vectors = 4
    for run in stride(from: 0, to: tile.runs, by: tile.panel) {
        func strip(_ column: Int, _ lanes: Int) -> Strip {
            Strip(run: run, segment: 0, column: column, count: min(tile.panel, tile.runs - run), lanes: lanes)
        }
        var column = 0
        if streams || tile.aligns != 0 {
            column = min(
                elementsToLine(Column<F.Scalar>(tile.out, tile, strip(0, laneCount)).base, tile.element), tile.length)
            if column > 0 { writeColumn(F.self, tile, channels, strip(0, column), streams: false) }
        }
        while column + vectors * laneCount <= tile.length {
            writeFour(F.self, tile, channels, strip(column, laneCount), streams: streams)
            column += vectors * laneCount
        }
        while column + laneCount <= tile.length {
            writeColumn(F.self, tile, channels, strip(column, laneCount), streams: streams)
            column += laneCount
        }
        if column < tile.length {
            writeColumn(F.self, tile, channels, strip(column, tile.length - column), streams: false)
        }
    }
}

/// All four are read before one is written: tensors at the same place of their pages would make each load wait for a store.
@inline(__always)
private func writeFour<F: Elementwise>(
    _: F.Type, _ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip, streams: Bool
) {
    func place(_ vector: Int) -> Strip {
        Strip(
            run: strip.run, segment: 0, column: strip.column + vector * laneCount, count: strip.count, lanes: laneCount)
    }
    let formulas = (
        F(tile, channels, place(0)), F(tile, channels, place(1)), F(tile, channels, place(2)),
        F(tile, channels, place(3))
    )
    func out(_ vector: Int) -> Column<F.Scalar> {
        Column(tile.out, tile, place(vector), step: tile.out.stride)
    }
    let outs = (out(0), out(1), out(2), out(3))
    for k in 0..<strip.count {
        if !streams {
            outs.0.prefetchOutput(k, tile)
            outs.1.prefetchOutput(k, tile)
            outs.2.prefetchOutput(k, tile)
            outs.3.prefetchOutput(k, tile)
        }
        let values = (formulas.0.value(k), formulas.1.value(k), formulas.2.value(k), formulas.3.value(k))
        outs.0.store(values.0, k, streams: streams)
        outs.1.store(values.1, k, streams: streams)
        outs.2.store(values.2, k, streams: streams)
        outs.3.store(values.3, k, streams: streams)
    }
}

/// One vector of each row, or a part of one: what is left beside the panels.
@inline(never)
private func writeColumn<F: Elementwise>(
    _: F.Type, _ tile: kernel_tile, _ channels: kernel_channels, _ strip: Strip, streams: Bool
) {
    let formula = F(tile, channels, strip)
    let out = Column<F.Scalar>(tile.out, tile, strip, step: tile.out.stride)
    for k in 0..<strip.count { out.store(formula.value(k), k, streams: streams) }
}
