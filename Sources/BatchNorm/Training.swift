// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// A forward call in training that is told more than one sweep can follow: groups of samples, other sources of statistics,
/// other averages. The moments of each group are kept; the running statistics move when all outputs are written.
struct Training {
    private let forward: Forward
    private let groups: Groups
    private let source: Source
    private let options: Options
    private let policy: Running
    private let running: (mean: Elements, variance: Elements)?
    private let kept: KeptBatches
    private let call: Call
    private var geometry: Geometry { forward.geometry }

    init(
        _ forward: Forward, _ groups: Groups, _ options: Options, _ running: (mean: Elements, variance: Elements)?,
        _ call: Call
    ) throws(Failure) {
        self.forward = forward
        self.groups = groups
        self.options = options
        self.running = running
        self.call = call
        source = options.source ?? Source()
        policy = options.running ?? Running()
        kept = try KeptBatches(groups.statisticsRows, forward.geometry.channels, call)
    }

    func run() throws(Failure) {
        try judge()
        // A pass for the statistics alone where a group is not in one piece, or where nothing may be written yet.
        let isOnePass =
            groups.ownStatistics && groups.areWhole(geometry.outer) && policy.nonfinite != BN_NONFINITE_ERROR
        if !isOnePass {
            try collect()
            try checkFinite()
        }
        try call.run(groups.slicesOfAll(geometry.outer, call)) { slice in
            let row = groups.statisticsRow(slice.group)
            let part = forward.slice(slice, groups, savedRow: row)
            var sweep = Sweep(part.geometry, call.kernels)
            part.fill(&sweep, call)
            if isOnePass { sweep.reduction = .moments }
            sweep.settlement = kept.settlement(
                part.settlement(.batch(eps: options.eps, nil)), sourcing(row, takes: isOnePass))
            return sweep
        }
        finish()
    }

    /// What each batch counts for, and what follows if that is next to nothing.
    private func judge() throws(Failure) {
        var slices = groups.slices(geometry.outer)
        while let slice = slices.next() {
            let part = geometry.slice(slice)
            let row = groups.statisticsRow(slice.group)
            if part.values == 0 { continue }
            let isSingle = part.isSingle && kept.totals[row] == 0
            kept.totals[row] += part.values
            kept[outcome: row] = isSingle ? BN_OUTCOME_BETA : BN_OUTCOME_USED
        }
        for row in 0..<kept.rows {
            if kept[outcome: row] != BN_OUTCOME_BETA {
                if running != nil && geometry.weights != nil { try call.checkUnbiased(kept.totals[row], options) }
            } else if policy.singleValue == BN_SINGLE_VALUE_ERROR {
                if kept.rows == 1 { throw call.singleValue }
                throw Failure(
                    BN_ERROR_SINGLE_VALUE, "the number of values per channel of group", .element(row, 1),
                    expected: "0 or more than 1, as running->single_value is BN_SINGLE_VALUE_ERROR")
            } else if policy.singleValue == BN_SINGLE_VALUE_RUNNING {
                kept[outcome: row] = BN_OUTCOME_RUNNING
            }
        }
    }

    private func collect() throws(Failure) {
        if !groups.ownStatistics {
            return try collect(Slice(start: 0, count: geometry.outer, step: 1, group: 0))
        }
        var slices = groups.slices(geometry.outer)
        while let slice = slices.next() { try collect(slice) }
    }

    private func collect(_ slice: Slice) throws(Failure) {
        var sweep = Sweep(geometry.slice(slice), call.kernels)
        sweep.x = forward.x.slice(slice, geometry.elementSize)
        sweep.reduction = .moments
        let sourcing = sourcing(groups.statisticsRow(slice.group), takes: true, saves: false)
        sweep.settlement = kept.settlement(ForwardSettlement(statistics: .batch(eps: options.eps, nil)), sourcing)
        try sweep.run(call)
    }

    private func checkFinite() throws(Failure) {
        if policy.nonfinite != BN_NONFINITE_ERROR { return }
        for row in 0..<kept.rows {
            guard let channel = kept.moments(row).firstNonfinite else { continue }
            throw Failure(
                BN_ERROR_NONFINITE, "the variance of x in channel",
                .element(row * geometry.channels + channel, kept.moments(row)[channel].m2.magnitude),
                expected: "a finite number, as running->nonfinite says")
        }
    }

    private func sourcing(_ row: Int, takes: Bool, saves: Bool = true) -> Sourcing {
        let offset = groups.runningRow(row) * geometry.channels
        return Sourcing(
            moments: kept.moments(row), takes: takes, eps: options.eps, source: source, outcome: kept[outcome: row],
            running: running.map { ($0.mean.from(offset), $0.variance.from(offset)) },
            factor: factor(row, policy.numBatches),
            biased: options.biasedRunningVariance,
            saved: saves ? source.saved.map { $0 + 4 * row * geometry.channels } : nil)
    }

    private func factor(_ row: Int, _ batches: UnsafeMutablePointer<Int64>?) -> Double {
        policy.factor(options.momentum, batches?[groups.runningRow(row)] ?? 0)
    }

    /// Outcomes, running statistics, and the number of batches that they have seen.
    private func finish() {
        for row in 0..<kept.rows {
            let isLost = policy.nonfinite == BN_NONFINITE_SKIP && kept.moments(row).firstNonfinite != nil
            if kept[outcome: row] == BN_OUTCOME_USED && isLost { kept[outcome: row] = BN_OUTCOME_NONFINITE }
            policy.outcome?[row] = Int32(kept[outcome: row].rawValue)
        }
        let batches = policy.begin(running, rows: groups.runningRows, geometry)
        if groups.averaged { kept.average(biased: options.biasedRunningVariance) }
        for row in 0..<kept.rows where kept[outcome: row] == BN_OUTCOME_USED {
            if let running {
                let offset = groups.runningRow(row) * geometry.channels
                let update = RunningUpdate(
                    mean: (policy.newMean.map { Elements($0, geometry.parameter) } ?? running.mean).from(offset),
                    variance: (policy.newVar.map { Elements($0, geometry.parameter) } ?? running.variance).from(offset),
                    momentum: factor(row, batches), biased: options.biasedRunningVariance || groups.averaged)
                for channel in 0..<geometry.channels {
                    update.apply(AnyElement.self, kept.moments(row)[channel], channel)
                }
            }
            batches?[groups.runningRow(row)] += 1
            if groups.averaged { break }
        }
    }
}
