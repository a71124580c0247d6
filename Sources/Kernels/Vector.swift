// SPDX-License-Identifier: Apache-2.0

/// Every instruction set computes in sixteen lanes, whatever its registers hold: the order of additions, and with it
/// every bit of a result, is that of the lanes.
let laneCount = 16

/// Sixteen consecutive elements; or fewer, in lanes of their own (`eachPiece`), the other lanes keeping `fill`.
@inline(__always)
func loadLanes<T: Element>(_ source: UnsafePointer<T>, lanes: Int, fill: SIMD16<T> = .zero) -> SIMD16<T> {
    if lanes == laneCount { return UnsafeRawPointer(source).loadUnaligned(as: SIMD16<T>.self) }
    var vector = fill
    withUnsafeMutableBytes(of: &vector) { bytes in
        eachPiece(of: lanes) { element, lane, width in
            bytes.baseAddress!.advanced(by: lane * MemoryLayout<T>.size)
                .copyMemory(from: source + element, byteCount: width * MemoryLayout<T>.size)
        }
    }
    return vector
}

/// The inverse of `loadLanes`.
@inline(__always)
func storeLanes<T: Element>(_ vector: SIMD16<T>, to target: UnsafeMutablePointer<T>, lanes: Int) {
    if lanes == laneCount { return UnsafeMutableRawPointer(target).storeBytes(of: vector, as: SIMD16<T>.self) }
    withUnsafeBytes(of: vector) { bytes in
        eachPiece(of: lanes) { element, lane, width in
            UnsafeMutableRawPointer(target + element)
                .copyMemory(
                    from: bytes.baseAddress! + lane * MemoryLayout<T>.size, byteCount: width * MemoryLayout<T>.size)
        }
    }
}

/// Takes 1 to 15 elements apart into pieces of eight, four, two and one, each with lanes of its own: 0–7, 8–11, 12–13
/// and 14. Every piece is one move on every instruction set, with neither masks nor a loop over the rest, and nothing
/// past the last element is touched.
@inline(__always)
private func eachPiece(of lanes: Int, _ move: (_ element: Int, _ lane: Int, _ width: Int) -> Void) {
    if lanes & 8 != 0 { move(0, 0, 8) }
    if lanes & 4 != 0 { move(lanes & 8, 8, 4) }
    if lanes & 2 != 0 { move(lanes & 12, 12, 2) }
    if lanes & 1 != 0 { move(lanes & 14, 14, 1) }
}

extension SIMD16 where Scalar == Double {
    /// The sum of all lanes, by halves: a fixed order, and shorter than one lane after the other.
    @inline(__always)
    func sum() -> Double {
        let eight = lowHalf + highHalf
        let four = eight.lowHalf + eight.highHalf
        let two = four.lowHalf + four.highHalf
        return two[0] + two[1]
    }
}
