// SPDX-License-Identifier: Apache-2.0

/// A forward settlement whose moments are kept, and whose statistics may have other sources than the batch.
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
