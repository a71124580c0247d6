// SPDX-License-Identifier: Apache-2.0
import CKernels

// Pivots from three values of each channel, sixteen channels at a time: the same operations as Pivots in the engine has for
// one, and the same reasons. The results are true, as 1, if all pivots are 0.

func choosePivots(_ given: kernel_pivots, _ channels: Int) -> Int32 {
    var others = SIMD16<Double>.zero
    for channel in stride(from: 0, to: channels, by: laneCount) {
        let (median, spread) = median(given, channel)
        let pivot = vector_at_most(spread * given.ratio, Double.magnitudes(median), median, .zero)
        storeLanes(pivot, to: given.pivots + channel)
        others += vector_equal(pivot, .zero, .zero, one)
    }
    return others.sum() == 0 ? 1 : 0
}

/// Beside the mean and the inverse standard deviation that are known.
func gradientPivots(_ given: kernel_pivots, _ channels: Int) -> Int32 {
    var others = SIMD16<Double>.zero
    for channel in stride(from: 0, to: channels, by: laneCount) {
        let (median, spread) = median(given, channel)
        let mean = loadLanes(given.mean + channel)
        let ratio = Double.magnitudes(mean * loadLanes(given.invstd + channel))
        let isWide = Double.above(spread * 64, Double.magnitudes(median), one, vector_equal(median, .zero, one, .zero))
        let isAbout0 = vector_at_most(ratio, SIMD16(repeating: 64), isWide, .zero)
        let pivot = Double.above(isAbout0, .zero, .zero, mean)
        storeLanes(pivot, to: given.pivots + channel)
        others += vector_equal(pivot, .zero, .zero, one)
    }
    return others.sum() == 0 ? 1 : 0
}

private var one: SIMD16<Double> { SIMD16(repeating: 1) }

@inline(__always)
private func median(
    _ given: kernel_pivots, _ channel: Int
) -> (value: SIMD16<Double>, spread: SIMD16<Double>) {
    func sample(_ place: UnsafeRawPointer?) -> SIMD16<Float> {
        loadLanes(place.unsafelyUnwrapped.assumingMemoryBound(to: Float.self) + channel)
    }
    let (a, b, c) = (sample(given.samples.0), sample(given.samples.1), sample(given.samples.2))
    let (low, high) = (Float.above(b, a, a, b), Float.above(b, a, b, a))
    let (least, most) = (Float.above(high, c, c, high), Float.above(high, c, high, c))
    let median = Float.widen(Float.above(least, low, least, low))
    return (finite(median), Float.widen(most) - Float.widen(Float.above(least, low, low, least)))
}
