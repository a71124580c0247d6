// SPDX-License-Identifier: Apache-2.0
import CKernels

/// A bit for each element of a tile's first run, from the lowest bit of the first byte on: whether it is above `low` and
/// up to `top` of the epilogue. The bits after the last one are 0.
@inline(__always)
func writeBits<T: FixedElement>(_: T.Type, _ tile: kernel_tile, _ bits: UnsafeMutablePointer<UInt8>) {
    let x = UnsafePointer(tile.x.base.assumingMemoryBound(to: T.self))
    let (low, top) = (T.Number(tile.epilogue.pointee.low), T.Number(tile.epilogue.pointee.top))
    for start in stride(from: 0, to: tile.length, by: laneCount) {
        let lanes = min(laneCount, tile.length - start)
        let found = T.Number.between(loadLanes(x + start, lanes: lanes), low, top)
        let kept = found & (1 << UInt32(lanes) - 1)
        bits[start / 8] = UInt8(truncatingIfNeeded: kept)
        if lanes > 8 { bits[start / 8 + 1] = UInt8(truncatingIfNeeded: kept >> 8) }
    }
}
