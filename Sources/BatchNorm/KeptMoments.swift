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
    let totals: UnsafeMutablePointer<Double>
    private let outcomes: UnsafeMutablePointer<bn_outcome>
    /// The settlement of the sweep at work.
    private let sourced: UnsafeMutablePointer<SourcedSettlement>

    /// As empty ones.
    init(_ rows: Int, _ channels: Int, _ call: Call) throws(Failure) {
        let size = rows * (KeptMoments.size(channels) + 2)
        let memory = try call.thread.pointee.kept.reserve(
            size * MemoryLayout<Double>.size + MemoryLayout<SourcedSettlement>.stride)
        sourced = memory.assumingMemoryBound(to: SourcedSettlement.self)
        self.rows = rows
        self.channels = channels
        values = (memory + MemoryLayout<SourcedSettlement>.stride).assumingMemoryBound(to: Double.self)
        totals = values + rows * KeptMoments.size(channels)
        outcomes = UnsafeMutableRawPointer(totals + rows).assumingMemoryBound(to: bn_outcome.self)
        values.update(repeating: 0, count: size - rows)
        outcomes.update(repeating: BN_OUTCOME_EMPTY, count: rows)
    }

    func moments(_ row: Int) -> KeptMoments { KeptMoments(values + row * KeptMoments.size(channels), channels) }

    func settlement(_ forward: ForwardSettlement, _ sourcing: Sourcing) -> Settlement {
        sourced.initialize(to: SourcedSettlement(forward: forward, sourcing: sourcing))
        return .sourced(UnsafePointer(sourced))
    }

    subscript(outcome row: Int) -> bn_outcome {
        get { outcomes[row] }
        nonmutating set { outcomes[row] = newValue }
    }

    /// Makes the first batch that is used one whose mean is the average of all their means, and its biased variance that of
    /// their variances.
    func average(biased: Bool) {
        var used = 0.0
        for row in 0..<rows where outcomes[row] == BN_OUTCOME_USED { used += 1 }
        for channel in 0..<channels {
            var (mean, variance, first) = (0.0, 0.0, -1)
            for row in 0..<rows where outcomes[row] == BN_OUTCOME_USED {
                let batch = moments(row)[channel]
                mean += batch.mean / used
                variance += batch.m2 / (biased ? batch.count : batch.count - 1) / used
                if first < 0 { first = row }
            }
            if first >= 0 { moments(first)[channel] = Moments(count: 1, mean: mean, m2: variance) }
        }
    }
}
