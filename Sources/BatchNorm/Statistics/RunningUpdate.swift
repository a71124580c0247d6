// SPDX-License-Identifier: Apache-2.0
import CBatchNorm

/// running = (1 − momentum) · running + momentum · batch, in double, rounded once.
struct RunningUpdate {
    let mean: Elements
    let variance: Elements
    let momentum: Double
    let biased: Bool

    /// A batch without values has nothing to say.
    @inline(__always)
    func apply<A: Access>(_: A.Type, _ batch: Moments, _ channel: Int) {
        if batch.count == 0 { return }
        mean[A.self, channel] = moved(mean[A.self, channel], batch.mean)
        variance[A.self, channel] = moved(variance[A.self, channel], batch.variance(biased: biased))
    }

    @inline(__always)
    func moved(_ running: Double, _ batch: Double) -> Double { (1 - momentum) * running + momentum * batch }

    /// The values that would be stored, rounded to the running statistics' type.
    @inline(never)
    func next(_ running: RunningPair, _ batch: Moments) -> RunningPair {
        if batch.count == 0 { return running }
        return (
            mean.type.rounded(moved(running.mean, batch.mean)),
            variance.type.rounded(moved(running.variance, batch.variance(biased: biased)))
        )
    }

    func stored(_ channel: Int) -> RunningPair { (mean[channel], variance[channel]) }
}

/// Running statistics of a channel.
typealias RunningPair = (mean: Double, variance: Double)
