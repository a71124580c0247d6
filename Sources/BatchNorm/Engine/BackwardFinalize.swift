// SPDX-License-Identifier: Apache-2.0
import CKernels

/// From the sums over dy, wherever they come from, to the gradients of gamma and beta and to the coefficients of dx.
struct BackwardFinalize: ChannelFinalizer {
    enum SumsOverBatch {
        case reduced(count: Double)
        /// Where the parts of a batch have a gamma each (`gains`), the sums are of gamma · dy.
        case given(
            count: UnsafePointer<Double>, dy: UnsafePointer<Double>, dyXHat: UnsafePointer<Double>, gains: Bool)
        /// The sums of a batch in several slices.
        case totals(count: Double, dy: UnsafePointer<Double>, dyCentred: UnsafePointer<Double>, gains: Bool)
        /// Frozen statistics, and no gradient of gamma or beta wanted.
        case none
    }

    let sums: SumsOverBatch
    /// The inverse standard deviation that x_hat is computed with: of x, or of the output.
    let inverseStd: UnsafePointer<Double>
    var mean: UnsafePointer<Double>?
    /// That of the forward call, where x_hat is computed with another.
    var forwardInverseStd: UnsafePointer<Double>?
    /// The dependence of x_hat on the statistics, as a forward call with a source saved it.
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

    /// The number of values, Σdy, Σdy · (x − mean) where it was summed, and Σdy · x_hat.
    typealias Known = (count: Double, dy: Double, dyCentred: Double, dyXHat: Double)

    func run<T: Real, A: Access>(_: T.Type, _: A.Type, _ step: ChannelStep, _ channels: Range<Int>) {
        if let count = plainCount(step) {
            let (dy, dyCentred) = (step.arrays.first, step.arrays.second)
            let rest = channels.lowerBound + runVectors(step, count, channels)
            for channel in rest..<channels.upperBound {
                let map = finalizePlain(A.self, count, dy: dy[channel], dyCentred: dyCentred[channel], channel)
                step.record(map, isGradient: !frozen, T.self, channel)
            }
        } else {
            for channel in channels {
                let map = finalize(step, channel)
                step.record(map, isGradient: !frozen, T.self, channel)
                if step.hasEpilogue { step.recordArgument(map, T.self, channel) }
            }
        }
    }

    /// Channels of the common case, as far as they fill vectors; gives their number.
    @inline(never)
    private func runVectors(_ step: ChannelStep, _ values: Double, _ channels: Range<Int>) -> Int {
        let first = channels.lowerBound
        let count = step.vectors(channels)
        guard count > 0, !frozen, let mean else { return 0 }
        var plain = kernel_backward_step(
            map: step.arrays.coefficients.writable(at: first, extremes: step.arrays.extremes), count: values,
            sum_dy: step.arrays.first + first, sum_dy_centred: step.arrays.second + first, mean: mean + first,
            invstd: inverseStd + first, gamma: gamma.map { UnsafeRawPointer($0.from(first).base) },
            dgamma: dgamma?.from(first).base, dbeta: dbeta?.from(first).base)
        step.kernels.pointee.backward_step(&plain, count)
        return count
    }

    /// The value count, if this is the common case, which has a loop of its own (own or frozen statistics, no epilogue: of
    /// 2,048 channels it takes a microsecond less); nil otherwise.
    private func plainCount(_ step: ChannelStep) -> Double? {
        guard case .reduced(let count) = sums, !step.isEmpty else { return nil }
        return saved == nil && !hasEpilogue && sumDy == nil ? count : nil
    }

    @inline(__always)
    private func finalizePlain<A: Access>(
        _: A.Type, _ count: Double, dy: Double, dyCentred: Double, _ channel: Int
    ) -> ChannelMap {
        let inverseStd = inverseStd[channel]
        let dyXHat = dyCentred * inverseStd
        dgamma?[A.self, channel] = dyXHat
        dbeta?[A.self, channel] = dy
        let scale = (gamma?[A.self, channel] ?? 1) * inverseStd
        // The zero that changes nothing it is added to: 0 would turn −0 into itself.
        if frozen { return ChannelMap(scale: scale, shift: -0.0) }
        return ChannelMap(
            mean: mean?[channel] ?? 0, scale: scale, dyMean: dy / count, slope: dyXHat / count * inverseStd)
    }

    @inline(never)
    private func finalize(_ step: ChannelStep, _ channel: Int) -> ChannelMap {
        let known = known(step, channel)
        dgamma?[channel] = known.dyXHat
        dbeta?[channel] = known.dy
        sumDy?[channel] = known.dy
        sumDyXHat?[channel] = known.dyXHat
        sumDyCentred?[channel] = known.dyCentred
        return map(channel, known)
    }

    @inline(__always)
    private func known(_ step: ChannelStep, _ channel: Int) -> Known {
        switch sums {
        case .reduced(let values):
            // No values, no sums: and a mean of nothing would raise the invalid flag.
            if step.isEmpty { return (1, 0, 0, 0) }
            return summed(values, step.arrays.first[channel], step.arrays.second[channel], channel)
        case .given(let counts, let dys, let dyXHats, _): return (counts[channel], dys[channel], 0, dyXHats[channel])
        case .totals(let count, let dys, let dyCentred, _):
            return summed(count, dys[channel], dyCentred[channel], channel)
        case .none: return (1, 0, 0, 0)
        }
    }

    private func summed(_ count: Double, _ dy: Double, _ dyCentred: Double, _ channel: Int) -> Known {
        (count == 0 ? 1 : count, dy, dyCentred, effective(channel).gradient(dy, dyCentred))
    }

    private func effective(_ channel: Int) -> EffectiveStatistics {
        let inverseStd = inverseStd[channel]
        guard let saved else { return EffectiveStatistics(mean: mean?[channel] ?? 0, inverseStd: inverseStd) }
        return EffectiveStatistics(mean: mean?[channel] ?? 0, inverseStd: inverseStd, saved: saved + 4 * channel)
    }

    fileprivate func map(_ step: ChannelStep, _ channel: Int) -> ChannelMap { map(channel, known(step, channel)) }

    @inline(never)
    private func map(_ channel: Int, _ known: Known) -> ChannelMap {
        let gamma = gamma?[channel] ?? 1
        let inverseStd = inverseStd[channel]
        let scale = isToZ ? 1 : gamma * (forwardInverseStd ?? self.inverseStd)[channel]
        if frozen {
            var map = ChannelMap(scale: scale, shift: -0.0)
            if hasEpilogue {
                map.mean = mean?[channel] ?? 0
                map.argument = argument(channel).argument
            }
            return map
        }
        let effective = effective(channel)
        var map = ChannelMap(
            mean: effective.mean, scale: scale, dyMean: effective.meanWeight * (known.dy / known.count),
            slope: slope(effective, known))
        if hasEpilogue { map.argument = argument(channel).argument }
        if gains {
            map.gain = gamma
            map.scale = inverseStd
        }
        return map
    }

    private var gains: Bool {
        switch sums {
        case .given(_, _, _, let gains), .totals(_, _, _, let gains): return gains
        case .reduced, .none: return false
        }
    }

    /// The factor that x − mean is subtracted with: Σdy · x_hat / count · invstd for the batch's own statistics.
    private func slope(_ effective: EffectiveStatistics, _ known: Known) -> Double {
        if saved == nil { return known.dyXHat / known.count * effective.inverseStd }
        return effective.varianceWeight * ((known.dyCentred + effective.lean * known.dy) / known.count)
    }

    /// The activation's argument of a channel.
    fileprivate func argument(_ channel: Int) -> ChannelMap {
        let effective = effective(channel)
        let gamma = gamma?[channel] ?? 1
        let beta = beta?[channel] ?? 0
        return ChannelMap(
            mean: effective.mean, scale: 1,
            argument: (gamma * effective.inverseStd, effective.shift == 0 ? beta : beta + gamma * effective.shift))
    }
}

extension Call {
    /// In the thread's memory, for the sweep at work.
    @inline(never)
    func finalize(_ backward: BackwardFinalize) -> Finalize {
        let place = thread.pointee.slot(.finalize, BackwardFinalize.self)
        place.initialize(to: backward)
        return Finalize(
            structure: place, isGradient: !backward.frozen, run: { BackwardFinalize.run($0, $1, $2, $3) },
            map: { $3.write(BackwardFinalize.at($0).pointee.map(ChannelStep.at($1).pointee, $2)) },
            argument: { $2.write(BackwardFinalize.at($0).pointee.argument($1)) })
    }
}
