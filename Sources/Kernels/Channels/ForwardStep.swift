// SPDX-License-Identifier: Apache-2.0
import CKernels

/// From the moments of a batch, or from running statistics, to the coefficients of y, sixteen channels at a time: the same
/// operations as ForwardFinalize in the engine has for one. A channel takes 1 ns, and 10 by itself.
func forwardStep(_ step: kernel_forward_step, _ channels: Int) {
    for channel in stride(from: 0, to: channels, by: laneCount) {
        func load(_ array: UnsafeRawPointer) -> SIMD16<Double> {
            Float.widen(loadLanes(array.assumingMemoryBound(to: Float.self) + channel))
        }
        let mean: SIMD16<Double>
        let meanTail: SIMD16<Double>
        let variance: SIMD16<Double>
        if let runningMean = step.running_mean, let runningVariance = step.running_var {
            (mean, meanTail, variance) = (load(runningMean), .zero, load(runningVariance))
        } else {
            mean = loadLanes(step.mean + channel)
            meanTail = loadLanes(step.mean_tail + channel)
            variance = loadLanes(step.m2 + channel) / step.count
        }
        let sum = variance + step.eps
        let inverseStd = vector_equal(sum, .zero, .zero, 1 / vector_square_roots(sum))
        if let saved = step.saved_mean { storeLanes(mean, to: saved + channel) }
        if let saved = step.saved_invstd { storeLanes(inverseStd, to: saved + channel) }
        let scale = step.gamma == nil ? inverseStd : load(step.gamma) * inverseStd
        let shift = step.beta == nil ? SIMD16<Double>.zero : load(step.beta)
        if let moved = step.moved_mean {
            move(moved, channel, towards: mean, step.momentum)
            move(step.moved_var, channel, towards: loadLanes(step.m2 + channel) / step.divisor, step.momentum)
        }
        MapCoefficients(step.map, channel).set(
            mean: mean, meanTail: meanTail, scale: scale, shift: shift)
    }
}

/// running = (1 − momentum) · running + momentum · batch
@inline(__always)
private func move(
    _ running: UnsafeMutableRawPointer, _ channel: Int, towards batch: SIMD16<Double>, _ momentum: Double
) {
    let place = running.assumingMemoryBound(to: Float.self) + channel
    let before = Float.widen(loadLanes(UnsafePointer(place)))
    storeLanes(Float.narrow((1 - momentum) * before + momentum * batch), to: place)
}
