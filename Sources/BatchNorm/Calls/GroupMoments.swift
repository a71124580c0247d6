// SPDX-License-Identifier: Apache-2.0
import CBatchNorm

/// Batches that a call normalizes each with its own statistics: their moments, what they count for, what becomes of them.
struct GroupMoments {
    let rows: Int
    private let channels: Int
    private let values: UnsafeMutablePointer<Double>
    private let totals: UnsafeMutablePointer<Double>
    private let isSingle: UnsafeMutablePointer<Double>
    private let outcomes: UnsafeMutablePointer<bn_outcome>

    /// Empty batches.
    init(_ rows: Int, _ channels: Int, _ call: Call) throws(Failure) {
        self.rows = rows
        self.channels = channels
        var layout = ArrayLayout()
        let values = layout.add(Double.self, MomentsArray.size(channels), times: rows)
        let totals = layout.add(Double.self, rows)
        let isSingle = layout.add(Double.self, rows)
        let outcomes = layout.add(bn_outcome.self, rows)
        let memory = try call.thread.pointee.kept.reserve(layout)
        self.values = values.in(memory)
        self.totals = totals.in(memory)
        self.isSingle = isSingle.in(memory)
        self.outcomes = outcomes.in(memory)
        self.values.update(repeating: 0, count: rows * MomentsArray.size(channels))
        self.totals.update(repeating: 0, count: rows)
        self.isSingle.update(repeating: 0, count: rows)
        self.outcomes.update(repeating: BN_OUTCOME_EMPTY, count: rows)
    }

    func moments(_ row: Int) -> MomentsArray { MomentsArray(values + row * MomentsArray.size(channels), channels) }

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
