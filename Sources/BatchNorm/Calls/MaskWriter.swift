// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Writes a bit for each element of y: whether the gradient passes the activation there. A pass of its own over y, so that
/// the work can be cut at whole bytes, wherever channels and strips begin.
struct MaskWriter {
    /// Elements that are a piece of work: of whole bytes.
    private static let piece = 1 << 15

    private let geometry: Geometry
    private let y: Operand
    private let mask: UnsafeMutablePointer<UInt8>
    private let call: Call

    init(_ geometry: Geometry, _ y: Operand, _ mask: UnsafeMutablePointer<UInt8>, _ call: Call) {
        self.geometry = geometry
        self.y = y
        self.mask = mask
        self.call = call
    }

    private var slice: Int { geometry.channels * geometry.inner }
    private var elements: Int { geometry.outer * slice }

    func run() {
        let pieces = (elements - 1) / MaskWriter.piece + 1
        withUnsafePointer(to: self) {
            let areLent = call.thread.pointee.lentThreads != nil
            let threads = Plan.threads(call.library.pointee.workers, for: geometry.bytes, areLent: areLent)
            call.run(pieces, $0, threads: threads) { context, piece, _ in
                context.assumingMemoryBound(to: MaskWriter.self).pointee.write(piece: piece)
            }
        }
    }

    private func write(piece: Int) {
        var next = piece * MaskWriter.piece
        let end = min(next + MaskWriter.piece, elements)
        let isDense = y.stride == slice
        while next < end {
            // Whole bytes up to the next gap; a byte that spans a gap is assembled bit by bit.
            let stop = isDense ? end : min(end, (next / slice + 1) * slice)
            let whole = stop == end ? stop : stop & ~7
            if whole > next {
                writeRun(next, whole)
                next = whole
            } else {
                let last = min(next + 8, end)
                mask[next / 8] = byte(next, last)
                next = last
            }
        }
    }

    private func place(_ element: Int) -> Int { element / slice * y.stride + element % slice }

    private func writeRun(_ start: Int, _ end: Int) {
        var tile = kernel_tile()
        tile.element = geometry.element
        tile.length = end - start
        tile.x.base = y.base.map { $0 + place(start) * geometry.elementSize }
        tile.epilogue = UnsafePointer(call.thread.pointee.epilogue)
        call.kernels.pointee.write_bits(&tile, mask + start / 8)
    }

    private func byte(_ start: Int, _ end: Int) -> UInt8 {
        let epilogue = call.thread.pointee.epilogue.pointee
        let values = Elements(y.base.unsafelyUnwrapped, geometry.element)
        var byte: UInt8 = 0
        for element in start..<end {
            let value = values[place(element)]
            if value > epilogue.low && value <= epilogue.top { byte |= 1 << UInt8(element - start) }
        }
        return byte
    }
}
