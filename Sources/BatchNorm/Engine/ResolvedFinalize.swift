// SPDX-License-Identifier: Apache-2.0
import CKernels

/// A forward call's finalizer whose moments are kept, and whose statistics may come from more than the batch.
struct ResolvedFinalize: ChannelFinalizer {
    let forward: ForwardFinalize
    let resolver: StatisticsResolver

    func run<T: Real, A: Access>(_: T.Type, _: A.Type, _ step: ChannelStep, _ channels: Range<Int>) {
        for channel in channels { step.record(finalize(step, channel), isGradient: false, T.self, channel) }
    }

    @inline(never)
    private func finalize(_ step: ChannelStep, _ channel: Int) -> ChannelMap {
        if resolver.takes {
            resolver.moments[channel] = resolver.moments[channel].merged(with: step.moments(channel))
        }
        let effective = resolver.effective(channel)
        forward.savedMean?[channel] = effective.mean
        forward.savedInverseStd?[channel] = effective.inverseStd
        resolver.save(effective, channel)
        return map(channel)
    }

    fileprivate func map(_ channel: Int) -> ChannelMap {
        let effective = resolver.effective(channel)
        let gamma = forward.gamma?[channel] ?? 1
        let beta = forward.beta?[channel] ?? 0
        return ChannelMap(
            mean: effective.mean, meanTail: effective.meanTail, scale: gamma * effective.inverseStd,
            shift: effective.shift == 0 ? beta : beta + gamma * effective.shift)
    }
}

extension Call {
    /// In the thread's memory, for the sweep at work.
    @inline(never)
    func finalize(_ forward: ForwardFinalize, _ resolver: StatisticsResolver) -> Finalize {
        let place = thread.pointee.slot(.finalize, ResolvedFinalize.self)
        place.initialize(to: ResolvedFinalize(forward: forward, resolver: resolver))
        return Finalize(
            structure: place, run: { ResolvedFinalize.run($0, $1, $2, $3) },
            map: { structure, _, channel, map in map.write(ResolvedFinalize.at(structure).pointee.map(channel)) })
    }
}
