// SPDX-License-Identifier: Apache-2.0
import CBatchNorm

/// running = (1 − momentum) · running + momentum · batch, in double, rounded once.
struct RunningUpdate {
    let mean: UnsafeMutableRawPointer
    let variance: UnsafeMutableRawPointer
    let momentum: Double
    let biased: Bool

    /// A batch without values has nothing to say.
    @inline(__always)
    func apply<T: Real>(_ batch: Moments, _ channel: Int, _: T.Type) {
        if batch.count == 0 { return }
        move(mean.assumingMemoryBound(to: T.self) + channel, batch.mean)
        move(variance.assumingMemoryBound(to: T.self) + channel, batch.m2 / (biased ? batch.count : batch.count - 1))
    }

    @inline(__always)
    private func move<T: Real>(_ running: UnsafeMutablePointer<T>, _ batch: Double) {
        running.pointee = T((1 - momentum) * Double(running.pointee) + momentum * batch)
    }
}
