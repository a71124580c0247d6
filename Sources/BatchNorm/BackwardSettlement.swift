// SPDX-License-Identifier: Apache-2.0
import CKernels

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

    /// The number of values, Σdy, Σdy · (x − mean) where it was summed, and Σdy · x_hat.
    typealias Known = (count: Double, dy: Double, dyCentred: Double, dyXHat: Double)

    /// The number of values, where there is nothing but what the formulas of a batch's own statistics, or of constants, know.
    func usualCount(_ sweep: borrowing Sweep) -> Double? {
        guard case .reduced(let count) = sums, sweep.geometry.count > 0 else { return nil }
        return saved == nil && !hasEpilogue && sumDy == nil ? count : nil
    }

    @inline(__always)
    func settleUsual<A: Access>(
        _: A.Type, _ count: Double, dy: Double, dyCentred: Double, _ channel: Int
    ) -> Line {
        let inverseStd = inverseStd[channel]
        let dyXHat = dyCentred * inverseStd
        dgamma?[A.self, channel] = dyXHat
        dbeta?[A.self, channel] = dy
        let scale = (gamma?[A.self, channel] ?? 1) * inverseStd
        // The zero that changes nothing it is added to: 0 would turn −0 into itself.
        if frozen { return Line(scale: scale, shift: -0.0) }
        return Line(
            mean: mean?[channel] ?? 0, scale: scale, dyMean: dy / count, slope: dyXHat / count * inverseStd)
    }

    @inline(never)
    func settle(_ sweep: borrowing Sweep, _ channel: Int) -> Line {
        let known = known(sweep, channel)
        dgamma?[channel] = known.dyXHat
        dbeta?[channel] = known.dy
        sumDy?[channel] = known.dy
        sumDyXHat?[channel] = known.dyXHat
        sumDyCentred?[channel] = known.dyCentred
        return line(channel, known)
    }

    @inline(__always)
    func known(_ sweep: borrowing Sweep, _ channel: Int) -> Known {
        switch sums {
        case .reduced(let values):
            // No values, no sums: and a mean of nothing would raise the invalid flag.
            if sweep.geometry.count == 0 { return (1, 0, 0, 0) }
            return summed(values, sweep.arrays.first[channel], sweep.arrays.second[channel], channel)
        case .given(let counts, let dys, let dyXHats): return (counts[channel], dys[channel], 0, dyXHats[channel])
        case .totals(let count, let dys, let dyCentred, _):
            return summed(count, dys[channel], dyCentred[channel], channel)
        case .none: return (1, 0, 0, 0)
        }
    }

    private func summed(_ count: Double, _ dy: Double, _ dyCentred: Double, _ channel: Int) -> Known {
        (count == 0 ? 1 : count, dy, dyCentred, normalizer(channel).gradient(dy, dyCentred))
    }

    private func normalizer(_ channel: Int) -> Normalizer {
        let inverseStd = inverseStd[channel]
        guard let saved else { return Normalizer(mean: mean?[channel] ?? 0, inverseStd: inverseStd) }
        return Normalizer(mean: mean?[channel] ?? 0, inverseStd: inverseStd, saved: saved + 4 * channel)
    }

    @inline(never)
    func line(_ channel: Int, _ known: Known) -> Line {
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
            slope: slope(normalizer, known))
        if hasEpilogue { line.argument = argument(channel).argument }
        if case .totals(_, _, _, true) = sums {
            line.gain = gamma
            line.scale = inverseStd
        }
        return line
    }

    /// The factor that x − mean is subtracted with: Σdy · x_hat / count · invstd for the batch's own statistics.
    private func slope(_ normalizer: Normalizer, _ known: Known) -> Double {
        if saved == nil { return known.dyXHat / known.count * normalizer.inverseStd }
        return normalizer.varianceWeight * ((known.dyCentred + normalizer.lean * known.dy) / known.count)
    }

    /// The activation's argument of a channel.
    func argument(_ channel: Int) -> Line {
        let normalizer = normalizer(channel)
        let gamma = gamma?[channel] ?? 1
        let beta = beta?[channel] ?? 0
        return Line(
            mean: normalizer.mean, scale: 1,
            argument: (gamma * normalizer.inverseStd, normalizer.shift == 0 ? beta : beta + gamma * normalizer.shift))
    }
}
