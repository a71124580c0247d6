// SPDX-License-Identifier: Apache-2.0
import CKernels

/// From a mean and an inverse standard deviation, wherever they come from, to the coefficients of y.
struct ForwardFinalize: ChannelFinalizer {
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
    /// Moments that those of the sweep are put with, for bn_moments.
    var merged: MomentsArray?

    func run<T: Real, A: Access>(_: T.Type, _: A.Type, _ step: ChannelStep, _ channels: Range<Int>) {
        // A local copy: the compiler cannot know that stores do not change it, and would load it for each channel (7 ns).
        let finalize = self
        let rest = channels.lowerBound + finalize.runVectors(step, channels)
        for channel in rest..<channels.upperBound {
            step.record(finalize.finalize(A.self, step, channel), isGradient: false, T.self, channel)
        }
    }

    /// Channels of a plain call, as far as they fill vectors; gives their number.
    @inline(never)
    private func runVectors(_ step: ChannelStep, _ channels: Range<Int>) -> Int {
        let count = step.vectors(channels)
        let first = channels.lowerBound
        if count == 0 { return 0 }
        var plain = kernel_forward_step()
        switch statistics {
        case .batch(let eps, let update):
            if step.values == 0 || merged != nil { return 0 }
            plain.eps = eps
            plain.count = step.values
            plain.mean = UnsafePointer(step.arrays.first + first)
            plain.mean_tail = UnsafePointer(step.arrays.meanTails + first)
            plain.m2 = UnsafePointer(step.arrays.second + first)
            if let update {
                plain.moved_mean = update.mean.from(first).base
                plain.moved_var = update.variance.from(first).base
                plain.momentum = update.momentum
                plain.divisor = update.biased ? step.values : step.values - 1
            }
        case .running(let eps, let mean, let variance):
            plain.eps = eps
            plain.running_mean = UnsafeRawPointer(mean.from(first).base)
            plain.running_var = UnsafeRawPointer(variance.from(first).base)
        case .given: return 0
        }
        plain.map = step.arrays.coefficients.writable(at: first, extremes: step.arrays.extremes)
        plain.gamma = gamma.map { UnsafeRawPointer($0.from(first).base) }
        plain.beta = beta.map { UnsafeRawPointer($0.from(first).base) }
        plain.saved_mean = savedMean.map { $0 + first }
        plain.saved_invstd = savedInverseStd.map { $0 + first }
        step.kernels.pointee.forward_step(&plain, count)
        return count
    }

    @inline(__always)
    private func finalize<A: Access>(_: A.Type, _ step: ChannelStep, _ channel: Int) -> ChannelMap {
        let known = known(A.self, step, channel)
        savedMean?[channel] = known.mean
        savedInverseStd?[channel] = known.inverseStd
        if case .batch(_, let update) = statistics {
            let batch = step.moments(channel)
            update?.apply(A.self, batch, channel)
            if let merged { merged[channel] = merged[channel].merged(with: batch) }
        }
        return map(A.self, channel, known)
    }

    private typealias Known = (mean: Double, meanTail: Double, inverseStd: Double)

    @inline(__always)
    private func known<A: Access>(_: A.Type, _ step: ChannelStep, _ channel: Int) -> Known {
        switch statistics {
        case .batch(let eps, _):
            let batch = step.moments(channel)
            return (batch.mean, batch.meanTail, batch.inverseStd(eps))
        case .running(let eps, let means, let variances):
            return (means[A.self, channel], 0, BatchNorm.inverseStd(variance: variances[A.self, channel], eps))
        case .given(let means, let inverseStds):
            return (means[channel], 0, inverseStds[channel])
        }
    }

    @inline(__always)
    private func map<A: Access>(_: A.Type, _ channel: Int, _ known: Known) -> ChannelMap {
        ChannelMap(
            mean: known.mean, meanTail: known.meanTail,
            scale: (gamma?[A.self, channel] ?? 1) * known.inverseStd, shift: beta?[A.self, channel] ?? 0)
    }

    fileprivate func map(_ step: ChannelStep, _ channel: Int) -> ChannelMap {
        map(AnyElement.self, channel, known(AnyElement.self, step, channel))
    }
}

extension Call {
    /// In the thread's memory, for the sweep at work.
    @inline(never)
    func finalize(_ forward: ForwardFinalize) -> Finalize {
        let place = thread.pointee.slot(.finalize, ForwardFinalize.self)
        place.initialize(to: forward)
        return Finalize(
            structure: place, run: { ForwardFinalize.run($0, $1, $2, $3) },
            map: { $3.write(ForwardFinalize.at($0).pointee.map(ChannelStep.at($1).pointee, $2)) })
    }
}
