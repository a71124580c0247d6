// SPDX-License-Identifier: Apache-2.0

/// A channel's normalization, and how its gradient depends on the batch statistics:
///
///     x_hat = (x − mean) · inverseStd + shift
///     dx = gamma · inverseStd · (dy − meanWeight · Σdy / M − (x − mean) · varianceWeight · (Σdy (x − mean) + lean · Σdy) / M)
///
/// where mean is that of the batch, if the batch has a part in it. For the batch's own statistics meanWeight is 1 and
/// varianceWeight is invstd²; for constants both are 0.
struct EffectiveStatistics {
    var mean: Double
    /// The part of the mean that rounding took.
    var meanTail = 0.0
    var inverseStd: Double
    var shift = 0.0
    var meanWeight = 1.0
    var varianceWeight = 0.0
    var lean = 0.0

    @inline(__always)
    init(mean: Double, meanTail: Double = 0, inverseStd: Double) {
        self.mean = mean
        self.meanTail = meanTail
        self.inverseStd = inverseStd
    }

    /// With what a forward call saved.
    init(mean: Double, inverseStd: Double, saved: UnsafePointer<Double>) {
        self.init(mean: mean, inverseStd: inverseStd)
        shift = saved[0]
        meanWeight = saved[1]
        varianceWeight = saved[2]
        lean = saved[3]
    }

    func save(to saved: UnsafeMutablePointer<Double>) {
        saved[0] = shift
        saved[1] = meanWeight
        saved[2] = varianceWeight
        saved[3] = lean
    }

    /// Σdy · x_hat.
    @inline(__always)
    func gradient(_ dy: Double, _ dyCentred: Double) -> Double {
        shift == 0 ? dyCentred * inverseStd : dyCentred * inverseStd + shift * dy
    }
}
