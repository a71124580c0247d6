// SPDX-License-Identifier: Apache-2.0

/// Every instruction set computes in sixteen lanes, whatever its registers hold: the order of additions, and with it
/// every bit of a result, is that of the lanes.
let laneCount = 16

/// Sixteen consecutive elements; or fewer, the other lanes keeping `fill`.
@inline(__always)
func loadLanes<T: Element>(_ source: UnsafePointer<T>, lanes: Int = laneCount, fill: SIMD16<T> = .zero) -> SIMD16<T> {
    lanes == laneCount
        ? UnsafeRawPointer(source).loadUnaligned(as: SIMD16<T>.self) : T.load(source, lanes: lanes, fill: fill)
}

/// The inverse of `loadLanes`.
@inline(__always)
func storeLanes<T: Element>(_ vector: SIMD16<T>, to target: UnsafeMutablePointer<T>, lanes: Int = laneCount) {
    if lanes == laneCount {
        UnsafeMutableRawPointer(target).storeBytes(of: vector, as: SIMD16<T>.self)
    } else {
        T.store(vector, to: target, lanes: lanes)
    }
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
