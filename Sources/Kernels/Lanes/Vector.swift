// SPDX-License-Identifier: Apache-2.0

/// Every instruction set computes in sixteen lanes, whatever its registers hold: the order of additions, and with it
/// every bit of a result, is that of the lanes.
let laneCount = 16

/// Sixteen consecutive elements; or fewer, the other lanes keeping `fill`.
@inline(__always)
func loadLanes<T: FixedElement>(
    _ source: UnsafePointer<T>, lanes: Int = laneCount, fill: SIMD16<T.Number> = .zero
) -> SIMD16<T.Number> {
    lanes == laneCount ? T.load(source) : T.load(source, lanes: lanes, fill: fill)
}

/// The inverse of `loadLanes`.
@inline(__always)
func storeLanes<T: FixedElement>(_ vector: SIMD16<T.Number>, to target: UnsafeMutablePointer<T>, lanes: Int = laneCount)
{
    if lanes == laneCount {
        T.store(vector, to: target)
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
