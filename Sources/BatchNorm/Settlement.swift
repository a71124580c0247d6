// SPDX-License-Identifier: Apache-2.0
import CKernels

/// What follows per channel from its reduction, or from what the caller gave instead: results, running statistics, and
/// the coefficients of the map.
enum Settlement {
    case forward(ForwardSettlement)
    /// Where it stays: larger than the others, and rarer.
    case sourced(UnsafePointer<SourcedSettlement>)
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
            for channel in range {
                Settlement.record(forward.settle(A.self, sweep, channel), false, T.self, sweep, channel)
            }
        case .sourced(let sourced):
            for channel in range {
                Settlement.record(sourced.pointee.settle(sweep, channel), false, T.self, sweep, channel)
            }
        case .backward(let backward):
            let isGradient = !backward.frozen
            if let count = backward.usualCount(sweep) {
                let (dy, dyCentred) = (sweep.arrays.first, sweep.arrays.second)
                for channel in range {
                    let known = (count, dy[channel], dyCentred[channel])
                    let line = backward.settleUsual(A.self, known, channel)
                    Settlement.record(line, isGradient, T.self, sweep, channel)
                }
            } else {
                for channel in range {
                    let line = backward.settle(sweep, channel)
                    Settlement.record(line, isGradient, T.self, sweep, channel)
                    sweep.arrays.coefficients.setGain(line.gain, channel, T.self)
                }
            }
        }
    }

    @inline(__always)
    private static func record<T: Real>(
        _ line: Line, _ isGradient: Bool, _: T.Type, _ sweep: borrowing Sweep, _ channel: Int
    ) {
        if sweep.map == nil || sweep.geometry.count == 0 { return }
        let arrays = sweep.arrays
        let isExpressed = arrays.coefficients.set(line, isGradient: isGradient, channel, T.self)
        arrays.extremes[channel] = isExpressed ? 0 : 1
    }

    /// Before the reduction: what it takes of an activation's argument.
    @inline(never)
    func prepare(_ sweep: borrowing Sweep) {
        guard case .backward(let backward) = self, sweep.epilogue != nil else { return }
        for channel in 0..<sweep.geometry.channels {
            let line = backward.argument(channel)
            if sweep.geometry.number == KERNEL_FLOAT32 {
                _ = sweep.arrays.coefficients.setArgument(line, channel, Float.self)
            } else {
                _ = sweep.arrays.coefficients.setArgument(line, channel, Double.self)
            }
        }
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
        case .sourced(let sourced): sourced.pointee.line(channel)
        case .backward(let backward): backward.line(channel, backward.known(sweep, channel))
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

/// The same with more to be told: moments that are kept, and other sources of statistics.
struct SourcedSettlement {
    let forward: ForwardSettlement
    let sourcing: Sourcing

    @inline(never)
    fileprivate func settle(_ sweep: borrowing Sweep, _ channel: Int) -> Line {
        if sourcing.takes {
            sourcing.moments[channel] = sourcing.moments[channel].merged(with: sweep.moments(channel))
        }
        let normalizer = sourcing.normalizer(channel)
        forward.savedMean?[channel] = normalizer.mean
        forward.savedInverseStd?[channel] = normalizer.inverseStd
        sourcing.save(normalizer, channel)
        return line(channel)
    }

    fileprivate func line(_ channel: Int) -> Line {
        let normalizer = sourcing.normalizer(channel)
        let gamma = forward.gamma?[channel] ?? 1
        let beta = forward.beta?[channel] ?? 0
        return Line(
            mean: normalizer.mean, rest: normalizer.rest, scale: gamma * normalizer.inverseStd,
            shift: normalizer.shift == 0 ? beta : beta + gamma * normalizer.shift)
    }
}

/// The sums over dy, wherever they come from, to the gradients of gamma and beta and to dx's coefficients.
struct BackwardSettlement {
    enum SumsOverBatch {
        case reduced(count: Double)
        case given(count: UnsafePointer<Double>, dy: UnsafePointer<Double>, dyXHat: UnsafePointer<Double>)
        /// Of a batch in several slices. Where they have a gamma each (`gains`), the sums are of gamma · dy.
        case totals(count: Double, dy: UnsafePointer<Double>, dyCentred: UnsafePointer<Double>, gains: Bool)
        /// Frozen statistics, and no gradient of gamma or beta wanted.
        case none
    }

    let sums: SumsOverBatch
    /// What x_hat is computed with: of x, or of the output.
    let inverseStd: UnsafePointer<Double>
    var mean: UnsafePointer<Double>?
    /// That of the forward call, where x_hat is computed with another.
    var forwardInverseStd: UnsafePointer<Double>?
    /// How x_hat depends on the statistics, where it is not as usual.
    var saved: UnsafePointer<Double>?
    var frozen = false
    var gamma: Elements?
    var beta: Elements?
    var dgamma: Elements?
    var dbeta: Elements?
    var sumDy: UnsafeMutablePointer<Double>?
    var sumDyXHat: UnsafeMutablePointer<Double>?
    var sumDyCentred: UnsafeMutablePointer<Double>?
    /// An activation or a mask is at work, and the map is that of an epilogue; it may be to dz alone.
    var hasEpilogue = false
    var isToZ = false

    /// Σdy and Σdy · (x − mean), and the number of values.
    typealias Known = (count: Double, dy: Double, dyCentred: Double)

    /// The number of values, where there is nothing but what the formulas of a batch's own statistics, or of constants, know.
    fileprivate func usualCount(_ sweep: borrowing Sweep) -> Double? {
        guard case .reduced(let count) = sums, sweep.geometry.count > 0 else { return nil }
        return saved == nil && !hasEpilogue && sumDy == nil ? count : nil
    }

    @inline(__always)
    fileprivate func settleUsual<A: Access>(_: A.Type, _ known: Known, _ channel: Int) -> Line {
        let inverseStd = inverseStd[channel]
        let dyXHat = known.dyCentred * inverseStd
        dgamma?[A.self, channel] = dyXHat
        dbeta?[A.self, channel] = known.dy
        let scale = (gamma?[A.self, channel] ?? 1) * inverseStd
        // The zero that changes nothing it is added to: 0 would turn −0 into itself.
        if frozen { return Line(scale: scale, shift: -0.0) }
        return Line(
            mean: mean?[channel] ?? 0, scale: scale, dyMean: known.dy / known.count,
            slope: dyXHat / known.count * inverseStd)
    }

    @inline(never)
    fileprivate func settle(_ sweep: borrowing Sweep, _ channel: Int) -> Line {
        let known = known(sweep, channel)
        let normalizer = normalizer(channel)
        let dyXHat = normalizer.gradient(known.dy, known.dyCentred)
        dgamma?[channel] = dyXHat
        dbeta?[channel] = known.dy
        sumDy?[channel] = known.dy
        sumDyXHat?[channel] = dyXHat
        sumDyCentred?[channel] = known.dyCentred
        return line(channel, known)
    }

    @inline(__always)
    fileprivate func known(_ sweep: borrowing Sweep, _ channel: Int) -> Known {
        switch sums {
        case .reduced(let values):
            // No values, no sums: and a mean of nothing would raise the invalid flag.
            if sweep.geometry.count == 0 { return (1, 0, 0) }
            let arrays = sweep.arrays
            return (values == 0 ? 1 : values, arrays.first[channel], arrays.second[channel])
        case .given(let counts, let dys, let dyXHats): return (counts[channel], dys[channel], dyXHats[channel])
        case .totals(let count, let dys, let dyCentred, _):
            return (count == 0 ? 1 : count, dys[channel], dyCentred[channel])
        case .none: return (1, 0, 0)
        }
    }

    private func normalizer(_ channel: Int) -> Normalizer {
        let inverseStd = inverseStd[channel]
        guard let saved else { return Normalizer(mean: mean?[channel] ?? 0, inverseStd: inverseStd) }
        return Normalizer(mean: mean?[channel] ?? 0, inverseStd: inverseStd, saved: saved + 4 * channel)
    }

    @inline(never)
    fileprivate func line(_ channel: Int, _ known: Known) -> Line {
        let gamma = gamma?[channel] ?? 1
        let inverseStd = inverseStd[channel]
        let scale = isToZ ? 1 : gamma * (forwardInverseStd ?? self.inverseStd)[channel]
        if frozen {
            var line = Line(scale: scale, shift: -0.0)
            if hasEpilogue {
                line.mean = mean?[channel] ?? 0
                line.argument = argument(channel).argument
            }
            return line
        }
        let normalizer = normalizer(channel)
        var line = Line(
            mean: normalizer.mean, scale: scale, dyMean: normalizer.meanWeight * (known.dy / known.count),
            slope: slope(normalizer, known, inverseStd))
        if hasEpilogue { line.argument = argument(channel).argument }
        if case .totals(_, _, _, true) = sums {
            line.gain = gamma
            line.scale = inverseStd
        }
        return line
    }

    /// What x − mean is subtracted with: invstd² · Σdy (x − mean) / count as a rule, in this order.
    private func slope(_ normalizer: Normalizer, _ known: Known, _ inverseStd: Double) -> Double {
        if case .given = sums { return known.dyCentred / known.count * inverseStd }
        if saved == nil { return known.dyCentred * inverseStd / known.count * inverseStd }
        return normalizer.varianceWeight * ((known.dyCentred + normalizer.lean * known.dy) / known.count)
    }

    /// The activation's argument of a channel.
    fileprivate func argument(_ channel: Int) -> Line {
        let normalizer = normalizer(channel)
        let gamma = gamma?[channel] ?? 1
        let beta = beta?[channel] ?? 0
        return Line(
            mean: normalizer.mean, scale: 1,
            argument: (gamma * normalizer.inverseStd, normalizer.shift == 0 ? beta : beta + gamma * normalizer.shift))
    }
}

extension Sweep {
    /// What the moments reduction found; an empty batch has none to be found.
    fileprivate func moments(_ channel: Int) -> Moments {
        if geometry.count == 0 || geometry.values == 0 { return .empty }
        let arrays = arrays
        return Moments(
            count: geometry.values, mean: arrays.first[channel], rest: arrays.rest[channel],
            m2: arrays.second[channel])
    }
}
