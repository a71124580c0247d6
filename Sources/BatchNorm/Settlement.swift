// SPDX-License-Identifier: Apache-2.0
import CKernels

/// What follows per channel from its reduction, or from what the caller gave instead: results, running statistics, and
/// the coefficients of the map.
enum Settlement {
    case forward(ForwardSettlement)
    case backward(BackwardSettlement)

    @inline(never)
    func settle(_ sweep: borrowing Sweep, _ range: Range<Int>) {
        if sweep.geometry.element == KERNEL_FLOAT32 {
            settle(Float.self, sweep, range)
        } else {
            settle(Double.self, sweep, range)
        }
    }

    private func settle<T: Real>(_: T.Type, _ sweep: borrowing Sweep, _ range: Range<Int>) {
        switch self {
        case .forward(let forward): for channel in range { forward.settle(T.self, sweep, channel) }
        case .backward(let backward): for channel in range { backward.settle(T.self, sweep, channel) }
        }
    }
}

/// Mean and inverse standard deviation, wherever they come from, to y's coefficients.
struct ForwardSettlement {
    enum Statistics {
        case batch(eps: Double, RunningUpdate?)
        case running(eps: Double, mean: UnsafeRawPointer, variance: UnsafeRawPointer)
        case given(mean: UnsafePointer<Double>, inverseStd: UnsafePointer<Double>)
    }

    let statistics: Statistics
    var gamma: UnsafeRawPointer?
    var beta: UnsafeRawPointer?
    var savedMean: UnsafeMutablePointer<Double>?
    var savedInverseStd: UnsafeMutablePointer<Double>?
    /// Moments as they are, for bn_moments.
    var moments:
        (count: UnsafeMutablePointer<Double>, mean: UnsafeMutablePointer<Double>, m2: UnsafeMutablePointer<Double>)?

    @inline(__always)
    fileprivate func settle<T: Real>(_: T.Type, _ sweep: borrowing Sweep, _ channel: Int) {
        let mean: Double
        var rest = 0.0
        let inverseStd: Double
        switch statistics {
        case .batch(let eps, let update):
            let batch = sweep.moments(channel)
            mean = batch.mean
            rest = batch.rest
            inverseStd = batch.inverseStd(eps)
            update?.apply(batch, channel, T.self)
            if let moments {
                moments.count[channel] = batch.count
                moments.mean[channel] = batch.mean
                moments.m2[channel] = batch.m2
            }
        case .running(let eps, let runningMean, let runningVariance):
            mean = parameter(runningMean, channel, T.self, else: 0)
            inverseStd = BatchNorm.inverseStd(variance: parameter(runningVariance, channel, T.self, else: 1), eps)
        case .given(let means, let inverseStds):
            mean = means[channel]
            inverseStd = inverseStds[channel]
        }
        savedMean?[channel] = mean
        savedInverseStd?[channel] = inverseStd
        if sweep.map == nil || sweep.geometry.count == 0 { return }
        let coefficients = sweep.arrays.coefficients
        coefficients.setMean(mean, rest: rest, channel, T.self)
        coefficients.setScale(parameter(gamma, channel, T.self, else: 1) * inverseStd, channel, T.self)
        coefficients.setShift(parameter(beta, channel, T.self, else: 0), channel, T.self)
    }
}

/// The sums over dy, wherever they come from, to the gradients of gamma and beta and to dx's coefficients.
struct BackwardSettlement {
    enum SumsOverBatch {
        case reduced(count: Int)
        case given(count: UnsafePointer<Double>, dy: UnsafePointer<Double>, dyXHat: UnsafePointer<Double>)
        /// Frozen statistics, and no gradient of gamma or beta wanted.
        case none
    }

    let sums: SumsOverBatch
    let inverseStd: UnsafePointer<Double>
    var mean: UnsafePointer<Double>?
    var frozen = false
    var gamma: UnsafeRawPointer?
    var dgamma: UnsafeMutableRawPointer?
    var dbeta: UnsafeMutableRawPointer?
    var sumDy: UnsafeMutablePointer<Double>?
    var sumDyXHat: UnsafeMutablePointer<Double>?

    @inline(__always)
    fileprivate func settle<T: Real>(_: T.Type, _ sweep: borrowing Sweep, _ channel: Int) {
        var count = 0.0
        var dy = 0.0
        var dyXHat = 0.0
        let inverseStd = inverseStd[channel]
        switch sums {
        case .reduced(let values):
            count = Double(values)
            if values > 0 {
                dy = sweep.arrays.first.unsafelyUnwrapped[channel]
                dyXHat = sweep.arrays.second.unsafelyUnwrapped[channel] * inverseStd
            }
        case .given(let counts, let dys, let dyXHats):
            count = counts[channel]
            dy = dys[channel]
            dyXHat = dyXHats[channel]
        case .none: break
        }
        dgamma?.assumingMemoryBound(to: T.self)[channel] = T(dyXHat)
        dbeta?.assumingMemoryBound(to: T.self)[channel] = T(dy)
        sumDy?[channel] = dy
        sumDyXHat?[channel] = dyXHat
        if sweep.map == nil || sweep.geometry.count == 0 { return }
        let coefficients = sweep.arrays.coefficients
        coefficients.setScale(parameter(gamma, channel, T.self, else: 1) * inverseStd, channel, T.self)
        if frozen {
            coefficients.setMean(0, channel, T.self)
            // The zero that changes nothing it is added to: 0 would turn −0 into itself.
            coefficients.setShift(-0.0, channel, T.self)
            return
        }
        coefficients.setMean(mean.unsafelyUnwrapped[channel], channel, T.self)
        coefficients.setGradientMean(dy / count, channel, T.self)
        coefficients.setSlope(dyXHat / count * inverseStd, channel, T.self)
    }
}

extension Sweep {
    /// What the moments reduction found; an empty batch has none to be found.
    fileprivate func moments(_ channel: Int) -> Moments {
        guard geometry.count > 0, let means = arrays.first, let rests = arrays.rest, let m2s = arrays.second else {
            return .empty
        }
        return Moments(count: Double(geometry.count), mean: means[channel], rest: rests[channel], m2: m2s[channel])
    }
}

/// A parameter of a channel, or what stands for one that the caller left out.
@inline(__always)
private func parameter<T: Real>(
    _ values: UnsafeRawPointer?, _ channel: Int, _: T.Type, else missing: Double
) -> Double {
    values.map { Double($0.assumingMemoryBound(to: T.self)[channel]) } ?? missing
}
