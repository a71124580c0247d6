// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// Finds the statistics that x is normalized with, from the moments of the batch and the running statistics.
struct StatisticsResolver {
    let moments: MomentsArray
    /// True if a sweep's moments are still to be put with those that are kept.
    var takes = false
    let eps: Double
    let source: Source
    let outcome: bn_outcome
    /// Read only, before they are updated.
    let running: (mean: Elements, variance: Elements)?
    /// The weight of the batch in the running statistics, and if its variance is biased there.
    let factor: Double
    let biased: Bool
    let saved: UnsafeMutablePointer<Double>?

    func save(_ effective: EffectiveStatistics, _ channel: Int) {
        if let saved { effective.save(to: saved + 4 * channel) }
    }

    @inline(never)
    func effective(_ channel: Int) -> EffectiveStatistics {
        let batch = moments[channel]
        let variance = batch.count == 0 ? 0 : batch.m2 / batch.count
        guard let running, outcome != BN_OUTCOME_BETA else { return ofBatch(batch) }
        let mean = running.mean[channel]
        let runningVariance = running.variance[channel]
        if outcome == BN_OUTCOME_RUNNING { return constant(mean, runningVariance) }
        switch source.kind {
        case BN_SOURCE_BLEND:
            if source.pseudoCount + batch.count == 0 { return ofBatch(batch) }
            let weight = batch.count / (source.pseudoCount + batch.count)
            return blend(batch, variance, (mean, runningVariance), weight, weight)
        case BN_SOURCE_UPDATED:
            if outcome != BN_OUTCOME_USED { return constant(mean, runningVariance) }
            let unbiased = biased ? 1 : batch.count / (batch.count - 1)
            return blend(batch, variance, (mean, runningVariance), factor, factor * unbiased)
        case BN_SOURCE_RENORM:
            var effective = ofBatch(batch)
            let inverseStd = BatchNorm.inverseStd(variance: runningVariance, eps)
            let ratio = vector_square_root(variance + eps) * inverseStd
            effective.inverseStd *= clip(ratio, source.rMin, source.rMax)
            effective.shift = clip((batch.mean - mean) * inverseStd, -source.dMax, source.dMax)
            return effective
        default: return ofBatch(batch)
        }
    }

    private func ofBatch(_ batch: Moments) -> EffectiveStatistics {
        var effective = EffectiveStatistics(
            mean: batch.mean, meanTail: batch.meanTail, inverseStd: batch.inverseStd(eps))
        effective.meanWeight = batch.count == 0 ? 0 : 1
        effective.varianceWeight = batch.count == 0 ? 0 : effective.inverseStd * effective.inverseStd
        return effective
    }

    private func constant(_ mean: Double, _ variance: Double) -> EffectiveStatistics {
        var effective = EffectiveStatistics(mean: mean, inverseStd: BatchNorm.inverseStd(variance: variance, eps))
        effective.meanWeight = 0
        return effective
    }

    /// (1 − weight) of the running statistics and weight of the batch's, which x is centred on.
    private func blend(
        _ batch: Moments, _ variance: Double, _ running: (mean: Double, variance: Double), _ weight: Double,
        _ weightOfVariance: Double
    ) -> EffectiveStatistics {
        if weight == 0 { return constant(running.mean, running.variance) }
        let blended = (1 - weight) * running.variance + weightOfVariance * variance
        var effective = EffectiveStatistics(
            mean: batch.mean, meanTail: batch.meanTail, inverseStd: BatchNorm.inverseStd(variance: blended, eps))
        effective.lean = (1 - weight) * (batch.mean - running.mean)
        effective.shift = effective.lean * effective.inverseStd
        effective.meanWeight = weight
        effective.varianceWeight = weightOfVariance * effective.inverseStd * effective.inverseStd
        return effective
    }
}

/// NaN stays NaN.
private func clip(_ value: Double, _ low: Double, _ high: Double) -> Double {
    value < low ? low : value > high ? high : value
}
