// SPDX-License-Identifier: Apache-2.0
import CKernels

/// From the moments of a batch, or from running statistics, to the coefficients of y, sixteen channels at a time: the same
/// operations as ForwardFinalize in the engine has for one. A channel takes 1 ns, and 10 by itself.
func forwardStep(_ step: kernel_forward_step, _ channels: Int) {
    for channel in stride(from: 0, to: channels, by: laneCount) {
        func load(_ array: UnsafeRawPointer?) -> SIMD16<Double>? {
            array.map { Float.widen(loadLanes($0.assumingMemoryBound(to: Float.self) + channel)) }
        }
        let mean = load(step.running_mean) ?? loadLanes(step.mean + channel)
        let meanTail = step.running_mean == nil ? loadLanes(step.mean_tail + channel) : .zero
        let variance = load(step.running_var) ?? loadLanes(step.m2 + channel) / step.count
        let sum = variance + step.eps
        let inverseStd = vector_equal(sum, .zero, .zero, 1 / vector_square_roots(sum))
        if let saved = step.saved_mean { storeLanes(mean, to: saved + channel) }
        if let saved = step.saved_invstd { storeLanes(inverseStd, to: saved + channel) }
        let gamma = load(step.gamma)
        let beta = load(step.beta)
        if let moved = step.moved_mean {
            move(moved, channel, towards: mean, step.momentum)
            move(step.moved_var, channel, towards: loadLanes(step.m2 + channel) / step.divisor, step.momentum)
        }
        MapCoefficients(step.map, channel).set(
            mean: mean, meanTail: meanTail, scale: gamma.map { $0 * inverseStd } ?? inverseStd, shift: beta ?? .zero)
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
