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
        move(A.self, mean, channel, batch.mean)
        move(A.self, variance, channel, batch.m2 / (biased ? batch.count : batch.count - 1))
    }

    @inline(__always)
    private func move<A: Access>(_: A.Type, _ running: Elements, _ channel: Int, _ batch: Double) {
        running[A.self, channel] = (1 - momentum) * running[A.self, channel] + momentum * batch
    }
}
