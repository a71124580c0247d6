// SPDX-License-Identifier: Apache-2.0

/// The same with more to be told: moments that are kept, and other sources of statistics.
struct SourcedSettlement {
    let forward: ForwardSettlement
    let sourcing: Sourcing

    @inline(never)
    func settle(_ sweep: borrowing Sweep, _ channel: Int) -> Line {
        if sourcing.takes {
            sourcing.moments[channel] = sourcing.moments[channel].merged(with: sweep.moments(channel))
        }
        let normalizer = sourcing.normalizer(channel)
        forward.savedMean?[channel] = normalizer.mean
        forward.savedInverseStd?[channel] = normalizer.inverseStd
        sourcing.save(normalizer, channel)
        return line(channel)
    }

    func line(_ channel: Int) -> Line {
        let normalizer = sourcing.normalizer(channel)
        let gamma = forward.gamma?[channel] ?? 1
        let beta = forward.beta?[channel] ?? 0
        return Line(
            mean: normalizer.mean, rest: normalizer.rest, scale: gamma * normalizer.inverseStd,
            shift: normalizer.shift == 0 ? beta : beta + gamma * normalizer.shift)
    }
}
