// SPDX-License-Identifier: Apache-2.0
import CKernels

/// A block's moments join those of the blocks before it, sixteen channels at a time: the same operations as Moments in the
/// engine has for one, and the same reasons.
func foldMoments(_ fold: kernel_fold, _ channels: Int) {
    let total = fold.before + fold.own
    let weight = fold.own / total
    for channel in stride(from: 0, to: channels, by: laneCount) {
        func store(_ vector: SIMD16<Double>, _ array: UnsafeMutablePointer<Double>) {
            storeLanes(vector, to: array + channel)
        }
        let sum = loadLanes(fold.sum + channel)
        let shift = sum / fold.own
        let cancelled = loadLanes(fold.squares + channel) - sum * shift
        let m2 = Double.above(.zero, cancelled, .zero, cancelled)
        let (mean, meanTail) = twoSum(loadLanes(fold.pivot + channel), shift)
        if fold.before == 0 {
            store(mean, fold.mean)
            store(meanTail, fold.mean_tail)
            store(m2, fold.m2)
            continue
        }
        let meanBefore = loadLanes(UnsafePointer(fold.mean + channel))
        let tailBefore = loadLanes(UnsafePointer(fold.mean_tail + channel))
        let difference = (mean - meanBefore) + (meanTail - tailBefore)
        let (shifted, lost) = twoSum(meanBefore, difference * weight)
        let (merged, left) = twoSum(shifted, tailBefore + lost)
        let blended = meanBefore * (fold.before / total) + mean * weight
        let none = difference - difference
        store(vector_equal(none, .zero, merged, blended), fold.mean)
        store(vector_equal(none, .zero, left, .zero), fold.mean_tail)
        let sofar = loadLanes(UnsafePointer(fold.m2 + channel))
        store(sofar + m2 + difference * difference * (fold.before * weight), fold.m2)
    }
}

/// True, as 1, if the sums of some channel lost too much about their pivots.
func loseDigits(_ fold: kernel_fold, _ most: Double, _ channels: Int) -> Int32 {
    var losses = SIMD16<Double>.zero
    for channel in stride(from: 0, to: channels, by: laneCount) {
        let sum = loadLanes(fold.sum + channel)
        let squares = loadLanes(fold.squares + channel)
        losses += vector_at_most(squares, most * (squares - sum * (sum / fold.own)), .zero, SIMD16(repeating: 1))
    }
    return losses.sum() == 0 ? 0 : 1
}

/// The sums of a block over dy join those of the blocks before it, about the mean of x whatever their pivot was.
func foldGradient(_ fold: kernel_gradient_fold, _ channels: Int) {
    for channel in stride(from: 0, to: channels, by: laneCount) {
        let pivot = loadLanes(fold.pivot + channel)
        let mean = loadLanes(fold.mean + channel)
        let sum = loadLanes(fold.sum + channel)
        let products = loadLanes(fold.products + channel) - vector_equal(pivot, mean, .zero, mean * sum)
        func add(_ vector: SIMD16<Double>, to array: UnsafeMutablePointer<Double>) {
            let before = fold.is_first != 0 ? .zero : loadLanes(UnsafePointer(array + channel))
            storeLanes(before + vector, to: array + channel)
        }
        add(sum, to: fold.sum_dy)
        add(products, to: fold.sum_dy_centred)
    }
}

/// a + b as a rounded sum and what it rounded away (Knuth).
@inline(__always)
private func twoSum(_ a: SIMD16<Double>, _ b: SIMD16<Double>) -> (sum: SIMD16<Double>, tail: SIMD16<Double>) {
    let sum = a + b
    let fromB = sum - a
    return (sum, (a - (sum - fromB)) + (b - fromB))
}
