// SPDX-License-Identifier: Apache-2.0
import CKernels

/// From the sums over dy to the gradients of gamma and beta and to the coefficients of dx, sixteen channels at a time: the
/// same operations as BackwardFinalize in the engine has for one.
func backwardStep(_ step: kernel_backward_step, _ channels: Int) {
    for channel in stride(from: 0, to: channels, by: laneCount) {
        func store(_ vector: SIMD16<Double>, _ array: UnsafeMutableRawPointer?) {
            if let array { storeLanes(Float.narrow(vector), to: array.assumingMemoryBound(to: Float.self) + channel) }
        }
        let inverseStd = loadLanes(step.invstd + channel)
        let dy = loadLanes(step.sum_dy + channel)
        let dyXHat = loadLanes(step.sum_dy_centred + channel) * inverseStd
        var scale = inverseStd
        if let gamma = step.gamma {
            scale = Float.widen(loadLanes(gamma.assumingMemoryBound(to: Float.self) + channel)) * inverseStd
        }
        store(dyXHat, step.dgamma)
        store(dy, step.dbeta)
        MapCoefficients(step.map, channel).set(
            mean: loadLanes(step.mean + channel), scale: scale,
            dyMean: dy / step.count, slope: dyXHat / step.count * inverseStd)
    }
}
