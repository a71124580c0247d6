// SPDX-License-Identifier: Apache-2.0
import CKernels

/// A part of the tensors, as the loops take it:
///
///     run 0     |<--length-->|<- pitch - length ->|<--length-->|        segments = 2
///     run 1     |<--length-->|                    |<--length-->|
///               |<------------ pitch ------------>|
///               |<------------------ stride, from run to run ------------------ ...
///
/// Planes (NCHW): a segment is a channel, and a run an outer index. Rows (NHWC, short planes): there is one segment, in which
/// each column is a channel, or an element of a short plane.
extension Sweep {
    /// The part with these channels, outer and inner indices; as rows, of which so many make a run, or as planes.
    @inline(never)
    func tile(_ channels: Range<Int>, _ extent: Extent, isRows: Bool, rowsPerRun: Int) -> kernel_tile {
        let column = channels.lowerBound * geometry.inner + extent.inner.lowerBound
        func part(_ operand: Operand) -> kernel_operand {
            let first = extent.outer.lowerBound * operand.stride + column
            return kernel_operand(
                base: operand.base.map { $0 + first * geometry.elementSize }, stride: operand.stride * rowsPerRun,
                prefetch: plan.prefetch, prefetch_last: plan.prefetch)
        }
        let bits = kernel_bits(
            base: bits.base, first: bits.first + extent.outer.lowerBound * bits.stride + column,
            stride: bits.stride * rowsPerRun)
        let weights = geometry.weights?.operand(extent.outer.lowerBound, extent.inner.lowerBound, geometry.number)
        return kernel_tile(
            element: geometry.element, layout: isRows ? .rows : .planes, runs: extent.outer.count / rowsPerRun,
            segments: isRows ? 1 : channels.count, pitch: geometry.inner,
            length: isRows ? channels.count * geometry.inner * rowsPerRun : extent.inner.count, band: plan.blocks.band,
            x: part(x), dy: part(dy), out: part(out), z: part(z), dz: part(dz), bits: bits,
            weights: weights ?? kernel_operand(), epilogue: epilogue, streams: plan.streams ? 1 : 0, aligns: 0, panel: 0
        )
    }
}

extension kernel_operand {
    /// With the distances at which a reduction prefetches: rows prefetch the same columns of the next band, if
    /// they are to; planes those of the next run, and in the last run the next planes of the first. In planes so long that a few of them are more than
    /// a first-level cache it is values a little further on. The distances were measured, see benchmarks/NOTES.md.
    func prefetching(_ tile: kernel_tile, rows: Bool) -> kernel_operand {
        var operand = self
        if tile.layout == .rows {
            operand.prefetch = rows ? tile.band * stride : 0
            operand.prefetch_last = operand.prefetch
        } else if tile.length > 4096 {
            operand.prefetch = 2048
            operand.prefetch_last = 2048
        } else {
            operand.prefetch = stride
            operand.prefetch_last =
                tile.length > 1024 ? 512 : min(4, tile.segments) * tile.pitch - (tile.runs - 1) * stride
        }
        return operand
    }

    /// From an element on, in runs of so many.
    func from(_ start: Int, _ length: Int, _ size: Int) -> kernel_operand {
        kernel_operand(
            base: base.map { $0 + start * size }, stride: length, prefetch: prefetch, prefetch_last: prefetch_last)
    }
}
