// SPDX-License-Identifier: Apache-2.0
import CBatchNorm

/// The moments of a batch, channel by channel, in memory of the engine's.
struct KeptMoments {
    private let memory: UnsafeMutablePointer<Double>
    private let channels: Int

    init(_ memory: UnsafeMutablePointer<Double>, _ channels: Int) {
        self.memory = memory
        self.channels = channels
    }

    subscript(channel: Int) -> Moments {
        get {
            Moments(
                count: memory[channel], mean: memory[channels + channel], rest: memory[2 * channels + channel],
                m2: memory[3 * channels + channel])
        }
        nonmutating set {
            memory[channel] = newValue.count
            memory[channels + channel] = newValue.mean
            memory[2 * channels + channel] = newValue.rest
            memory[3 * channels + channel] = newValue.m2
        }
    }

    /// The first channel whose mean or variance is not finite.
    var firstNonfinite: Int? {
        for channel in 0..<channels {
            let moments = self[channel]
            if moments.mean - moments.mean != 0 || moments.m2 - moments.m2 != 0 { return channel }
        }
        return nil
    }

    /// Doubles that a batch takes.
    static func size(_ channels: Int) -> Int { 4 * channels }
}

/// Batches that a call normalizes each with its own statistics: their moments, what they count for, what becomes of them.
struct KeptBatches {
    let rows: Int
    private let channels: Int
    private let values: UnsafeMutablePointer<Double>
    private let totals: UnsafeMutablePointer<Double>
    private let isSingle: UnsafeMutablePointer<Double>
    private let outcomes: UnsafeMutablePointer<bn_outcome>
    /// The settlement of the sweep at work.
    private let sourced: UnsafeMutablePointer<SourcedSettlement>

    /// As empty ones.
    init(_ rows: Int, _ channels: Int, _ call: Call) throws(Failure) {
        let size = rows * (KeptMoments.size(channels) + 3)
        let memory = try call.thread.pointee.kept.reserve(
            size * MemoryLayout<Double>.size + MemoryLayout<SourcedSettlement>.stride)
        sourced = memory.assumingMemoryBound(to: SourcedSettlement.self)
        self.rows = rows
        self.channels = channels
        values = (memory + MemoryLayout<SourcedSettlement>.stride).assumingMemoryBound(to: Double.self)
        totals = values + rows * KeptMoments.size(channels)
        isSingle = totals + rows
        outcomes = UnsafeMutableRawPointer(isSingle + rows).assumingMemoryBound(to: bn_outcome.self)
        values.update(repeating: 0, count: size - rows)
        outcomes.update(repeating: BN_OUTCOME_EMPTY, count: rows)
    }

    func moments(_ row: Int) -> KeptMoments { KeptMoments(values + row * KeptMoments.size(channels), channels) }

    func settlement(_ forward: ForwardSettlement, _ sourcing: Sourcing) -> Settlement {
        sourced.initialize(to: SourcedSettlement(forward: forward, sourcing: sourcing))
        return .sourced(UnsafePointer(sourced))
    }

    func total(_ row: Int) -> Double { totals[row] }
    func isSingle(_ row: Int) -> Bool { isSingle[row] == 1 }

    func weigh(_ groups: Groups, _ geometry: Geometry) { groups.weigh(geometry, totals: totals, isSingle: isSingle) }

    subscript(outcome row: Int) -> bn_outcome {
        get { outcomes[row] }
        nonmutating set { outcomes[row] = newValue }
    }

    /// None of the batches that are used can be.
    func loseAll() {
        for row in 0..<rows where outcomes[row] == BN_OUTCOME_USED { outcomes[row] = BN_OUTCOME_NONFINITE }
    }

    /// The average of the batches that are used, as moments of one value: its mean that of their means, and its m2 that of
    /// their variances.
    func average(_ channel: Int, biased: Bool) -> Moments {
        var (used, mean, variance) = (0.0, 0.0, 0.0)
        for row in 0..<rows where outcomes[row] == BN_OUTCOME_USED { used += 1 }
        for row in 0..<rows where outcomes[row] == BN_OUTCOME_USED {
            let batch = moments(row)[channel]
            mean += batch.mean / used
            variance += batch.variance(biased: biased) / used
        }
        return used == 0 ? .empty : Moments(count: 1, mean: mean, m2: variance)
    }
}
