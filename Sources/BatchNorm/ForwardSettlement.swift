// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Mean and inverse standard deviation, wherever they come from, to y's coefficients.
struct ForwardSettlement {
    enum Statistics {
        case batch(eps: Double, RunningUpdate?)
        case running(eps: Double, mean: Elements, variance: Elements)
        case given(mean: UnsafePointer<Double>, inverseStd: UnsafePointer<Double>)
    }

    let statistics: Statistics
    var gamma: Elements?
    var beta: Elements?
    var savedMean: UnsafeMutablePointer<Double>?
    var savedInverseStd: UnsafeMutablePointer<Double>?
    /// Moments as they are, for bn_moments.
    var moments:
        (count: UnsafeMutablePointer<Double>, mean: UnsafeMutablePointer<Double>, m2: UnsafeMutablePointer<Double>)?
    /// What rounding took from the mean, if that is wanted as well.
    var rest: UnsafeMutablePointer<Double>?

    /// The mean as a sum of two terms.
    typealias Known = (mean: Double, rest: Double, inverseStd: Double)

    @inline(__always)
    func settle<A: Access>(_: A.Type, _ sweep: borrowing Sweep, _ channel: Int) -> Line {
        let known = known(A.self, sweep, channel)
        savedMean?[channel] = known.mean
        savedInverseStd?[channel] = known.inverseStd
        if case .batch(_, let update) = statistics {
            let batch = sweep.moments(channel)
            update?.apply(A.self, batch, channel)
            if let moments {
                moments.count[channel] = batch.count
                moments.mean[channel] = batch.mean
                moments.m2[channel] = batch.m2
                rest?[channel] = batch.rest
            }
        }
        return line(A.self, channel, known)
    }

    @inline(__always)
    func known<A: Access>(_: A.Type, _ sweep: borrowing Sweep, _ channel: Int) -> Known {
        switch statistics {
        case .batch(let eps, _):
            let batch = sweep.moments(channel)
            return (batch.mean, batch.rest, batch.inverseStd(eps))
        case .running(let eps, let means, let variances):
            return (means[A.self, channel], 0, BatchNorm.inverseStd(variance: variances[A.self, channel], eps))
        case .given(let means, let inverseStds):
            return (means[channel], 0, inverseStds[channel])
        }
    }

    @inline(__always)
    func line<A: Access>(_: A.Type, _ channel: Int, _ known: Known) -> Line {
        Line(
            mean: known.mean, rest: known.rest,
            scale: (gamma?[A.self, channel] ?? 1) * known.inverseStd, shift: beta?[A.self, channel] ?? 0)
    }
}

extension Sweep {
    /// What the moments reduction found; an empty batch has none to be found.
    func moments(_ channel: Int) -> Moments {
        if geometry.count == 0 || geometry.values == 0 { return .empty }
        let arrays = arrays
        return Moments(
            count: geometry.values, mean: arrays.first[channel], rest: arrays.rest[channel],
            m2: arrays.second[channel])
    }
}
