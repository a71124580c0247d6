// SPDX-License-Identifier: Apache-2.0
import CKernels

extension Column {
    /// z; without one a zero that changes nothing it is added to, from one vector again and again. Along a strip, or down
    /// the rows of a column.
    @inline(__always)
    init(residual tile: kernel_tile, _ strip: Strip, down: Bool = false) {
        if tile.z.base == nil {
            self.init(constant: tile.epilogue.pointee.zeros, tile, strip)
        } else {
            self.init(tile.z, tile, strip, step: down ? tile.z.stride : laneCount)
        }
    }
}
