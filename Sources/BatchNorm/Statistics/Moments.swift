// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Number of values, mean, and sum of squared deviations from it.
///
/// A block's moments come from one pass over its values, by sums of d = x − pivot in double:
///
///     mean = pivot + Σd / n        m2 = Σd² − (Σd)² / n
///
/// The subtraction cancels, but never much. The pivot is one of the values, so that its own d is 0; by the inequality
/// of Cauchy and Schwarz for the n − 1 others (Σd)² ≤ (n − 1) · Σd², from which follows Σd² ≤ n · m2. No more than log₂
/// n of the 53 bits are lost, whatever the data; E[x²] − E[x]² loses all of them at |mean| / std of 1e8. The median of
/// three values keeps one outlier from being the pivot, and the loss at a few bits in practice; where it is more, the
/// pivot gives way to the mean (see Pivots.swift). Equal values give d = 0: mean and m2 are exact.
///
/// The mean is a sum of two doubles, the second what the first rounded away: merging subtracts means, and float64
/// values are centred on them, where |mean| / std roundings of one double would show.
struct Moments {
    var count: Double
    var mean: Double
    var meanTail = 0.0
    var m2: Double

    static var empty: Moments { Moments(count: 0, mean: 0, m2: 0) }
}

extension Moments {
    /// From the sums of d and d² of a block.
    @inline(__always)
    init(count: Double, pivot: Double, sum: Double, squares: Double) {
        let shift = sum / count
        let m2 = squares - sum * shift
        let (mean, meanTail) = twoSum(pivot, shift)
        self.init(count: count, mean: mean, meanTail: meanTail, m2: m2 < 0 ? 0 : m2)
    }

    /// The moments of the union (Chan, Golub and LeVeque, 1979). An infinite mean meets the other one in a weighted sum, which
    /// keeps it: the difference of the two would make it NaN.
    @inline(__always)
    func merged(with other: Moments) -> Moments {
        if count == 0 { return other }
        if other.count == 0 { return self }
        let total = count + other.count
        let difference = (other.mean - mean) + (other.meanTail - meanTail)
        let weight = other.count / total
        let isFinite = difference.isFiniteByDifference
        let (shifted, lost) = twoSum(mean, difference * weight)
        // Over thousands of merges the meanTail would grow beyond the last place of the mean.
        let (sum, left) = twoSum(shifted, meanTail + lost)
        let blended = mean * (count / total) + other.mean * weight
        return Moments(
            count: total, mean: isFinite ? sum : blended, meanTail: isFinite ? left : 0,
            m2: m2 + other.m2 + difference * difference * (count * weight))
    }

    /// Over the values, or over one less, which is an unbiased estimate; of values there are more than that.
    @inline(__always)
    func variance(biased: Bool) -> Double { m2 / (biased ? count : count - 1) }

    /// 1 / √(variance + eps). A channel without variance and without eps is left where it is: 0, as in PyTorch.
    @inline(__always)
    func inverseStd(_ eps: Double) -> Double { BatchNorm.inverseStd(variance: count == 0 ? 0 : m2 / count, eps) }
}

/// a + b as a rounded sum and what it rounded away (Knuth).
@inline(__always)
func twoSum(_ a: Double, _ b: Double) -> (sum: Double, meanTail: Double) {
    let sum = a + b
    let fromB = sum - a
    return (sum, (a - (sum - fromB)) + (b - fromB))
}

@inline(__always)
func inverseStd(variance: Double, _ eps: Double) -> Double {
    let sum = variance + eps
    return sum == 0 ? 0 : 1 / vector_square_root(sum)
}
