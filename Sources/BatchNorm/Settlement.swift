// SPDX-License-Identifier: Apache-2.0
import CKernels

/// What follows per channel from its reduction, or from what the caller gave instead: results, running statistics, and
/// the coefficients of the map.
enum Settlement {
    case forward(ForwardSettlement)
    case backward(BackwardSettlement)

    @inline(never)
    func settle(_ sweep: borrowing Sweep, _ range: Range<Int>) {
        // Parameters are nearly always of the type that is computed with: their loops know it.
        let isUsual = sweep.geometry.parameter == sweep.geometry.number
        switch (sweep.geometry.number, isUsual) {
        case (KERNEL_FLOAT32, true): settle(Float.self, Float.self, sweep, range)
        case (KERNEL_FLOAT32, false): settle(Float.self, AnyElement.self, sweep, range)
        case (_, true): settle(Double.self, Double.self, sweep, range)
        case (_, false): settle(Double.self, AnyElement.self, sweep, range)
        }
    }

    private func settle<T: Real, A: Access>(_: T.Type, _: A.Type, _ sweep: borrowing Sweep, _ range: Range<Int>) {
        switch self {
        case .forward(let forward):
            for channel in range { record(forward.settle(A.self, sweep, channel), T.self, sweep, channel) }
        case .backward(let backward):
            for channel in range { record(backward.settle(A.self, sweep, channel), T.self, sweep, channel) }
        }
    }

    @inline(__always)
    private func record<T: Real>(_ line: Line, _: T.Type, _ sweep: borrowing Sweep, _ channel: Int) {
        if sweep.map == nil || sweep.geometry.count == 0 { return }
        let arrays = sweep.arrays
        let isExpressed = arrays.coefficients.set(line, isGradient: isGradient, channel, T.self)
        arrays.extremes[channel] = isExpressed ? 0 : 1
    }

    /// Whether the map is the gradient through the statistics, and not a normalization.
    var isGradient: Bool {
        if case .backward(let backward) = self { !backward.frozen } else { false }
    }

    /// What the map of a channel is, once it is settled.
    func line(_ sweep: borrowing Sweep, _ channel: Int) -> Line {
        switch self {
        case .forward(let forward):
            forward.line(AnyElement.self, channel, forward.known(AnyElement.self, sweep, channel))
        case .backward(let backward): backward.line(AnyElement.self, channel, backward.known(sweep, channel))
        }
    }
}

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

    /// The mean as a sum of two terms.
    typealias Known = (mean: Double, rest: Double, inverseStd: Double)

    @inline(__always)
    fileprivate func settle<A: Access>(_: A.Type, _ sweep: borrowing Sweep, _ channel: Int) -> Line {
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
            }
        }
        return line(A.self, channel, known)
    }

    @inline(__always)
    fileprivate func known<A: Access>(_: A.Type, _ sweep: borrowing Sweep, _ channel: Int) -> Known {
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
    fileprivate func line<A: Access>(_: A.Type, _ channel: Int, _ known: Known) -> Line {
        Line(
            mean: known.mean, rest: known.rest,
            scale: (gamma?[A.self, channel] ?? 1) * known.inverseStd, shift: beta?[A.self, channel] ?? 0)
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
    var gamma: Elements?
    var dgamma: Elements?
    var dbeta: Elements?
    var sumDy: UnsafeMutablePointer<Double>?
    var sumDyXHat: UnsafeMutablePointer<Double>?

    typealias Known = (count: Double, dy: Double, dyXHat: Double)

    @inline(__always)
    fileprivate func settle<A: Access>(_: A.Type, _ sweep: borrowing Sweep, _ channel: Int) -> Line {
        let known = known(sweep, channel)
        dgamma?[A.self, channel] = known.dyXHat
        dbeta?[A.self, channel] = known.dy
        sumDy?[channel] = known.dy
        sumDyXHat?[channel] = known.dyXHat
        return line(A.self, channel, known)
    }

    @inline(__always)
    fileprivate func known(_ sweep: borrowing Sweep, _ channel: Int) -> Known {
        switch sums {
        case .reduced(let values):
            // No values, no sums: and a mean of nothing would raise the invalid flag.
            if values == 0 { return (1, 0, 0) }
            let arrays = sweep.arrays
            return (Double(values), arrays.first[channel], arrays.second[channel] * inverseStd[channel])
        case .given(let counts, let dys, let dyXHats): return (counts[channel], dys[channel], dyXHats[channel])
        case .none: return (1, 0, 0)
        }
    }

    @inline(__always)
    fileprivate func line<A: Access>(_: A.Type, _ channel: Int, _ known: Known) -> Line {
        let inverseStd = inverseStd[channel]
        let scale = (gamma?[A.self, channel] ?? 1) * inverseStd
        // The zero that changes nothing it is added to: 0 would turn −0 into itself.
        if frozen { return Line(scale: scale, shift: -0.0) }
        return Line(
            mean: mean?[channel] ?? 0, scale: scale, dyMean: known.dy / known.count,
            slope: known.dyXHat / known.count * inverseStd)
    }
}

extension Sweep {
    /// What the moments reduction found; an empty batch has none to be found.
    fileprivate func moments(_ channel: Int) -> Moments {
        if geometry.count == 0 { return .empty }
        let arrays = arrays
        return Moments(
            count: Double(geometry.count), mean: arrays.first[channel], rest: arrays.rest[channel],
            m2: arrays.second[channel])
    }
}
