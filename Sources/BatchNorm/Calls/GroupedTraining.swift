// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels
import Synchronization

/// Training that needs more than one sweep: groups of samples, other sources of statistics, other averages. The moments of
/// each group are kept; the running statistics move when all outputs are written.
struct GroupedTraining: ~Copyable {
    /// Has it go by address (see Sweep).
    private let byAddress = Atomic<Bool>(false)
    private let forward: Forward
    private let groups: Groups
    private let source: Source
    private let options: Options
    private let policy: Running
    private var running: RunningStatistics?
    private let kept: GroupMoments
    private let call: Call
    private var geometry: Geometry { forward.geometry }

    init(
        _ forward: Forward, _ options: Options, _ running: RunningStatistics?, _ call: Call
    ) throws(Failure) {
        self.forward = forward
        self.options = options
        self.running = running
        self.call = call
        groups = options.groups ?? Groups()
        source = options.source ?? Source()
        policy = options.running ?? Running()
        kept = try GroupMoments(groups.statisticsRows, forward.geometry.channels, call)
    }

    mutating func run() throws(Failure) {
        try judge()
        // A pass for the statistics alone where a group is not in one piece, or where nothing may be written yet.
        let isOnePass =
            groups.ownStatistics && groups.areWhole(geometry.outer) && policy.nonfinite != BN_NONFINITE_ERROR
        if !isOnePass {
            try collect()
            try checkFinite()
        }
        try call.run(groups.slicesOfAll(geometry.outer, call)) { slice in
            let part = forward.slice(slice, groups)
            let sweep = part.sweep(call)
            if isOnePass { sweep.pointee.reduction = .moments }
            sweep.pointee.finalize = call.finalize(
                part.finalize(.batch(eps: options.eps, nil)),
                resolver(groups.statisticsRow(slice.group), takes: isOnePass))
            return sweep
        }
        finish()
    }

    /// Counts each group's values, and decides what becomes of empty groups and of those of a single value.
    @inline(never)
    @_optimize(size)
    private func judge() throws(Failure) {
        kept.weigh(groups, geometry)
        for row in 0..<kept.rows where kept.total(row) > 0 {
            if kept.isSingle(row) {
                kept[outcome: row] = try outcomeOfSingle(row)
            } else {
                if running != nil && geometry.weights != nil { try call.checkUnbiased(kept.total(row), options) }
                kept[outcome: row] = BN_OUTCOME_USED
            }
        }
    }

    @inline(never)
    private func outcomeOfSingle(_ row: Int) throws(Failure) -> bn_outcome {
        if policy.singleValue == BN_SINGLE_VALUE_RUNNING { return BN_OUTCOME_RUNNING }
        if policy.singleValue == BN_SINGLE_VALUE_BETA { return BN_OUTCOME_BETA }
        // Its mean and its variance of 0 have a share in those of the pseudo-values.
        if source.kind == BN_SOURCE_BLEND && source.pseudoCount > 0 { return BN_OUTCOME_BLENDED }
        if kept.rows == 1 { throw geometry.weights == nil ? call.singleValue : call.singlePosition }
        throw Failure(
            BN_ERROR_SINGLE_VALUE, "the number of values per channel of group", .element(row, 1),
            expected: "0 or more than 1, as running->single_value is BN_SINGLE_VALUE_ERROR")
    }

    @inline(never)
    private func collect() throws(Failure) {
        var slices = groups.slicesOfStatistics(geometry.outer)
        while let slice = slices.next() { try collect(slice) }
    }

    private func collect(_ slice: Slice) throws(Failure) {
        let sweep = forward.slice(slice, groups).sweep(call, writes: false)
        sweep.pointee.reduction = .moments
        let resolver = resolver(groups.statisticsRow(slice.group), takes: true, saves: false)
        sweep.pointee.finalize = call.finalize(ForwardFinalize(statistics: .batch(eps: options.eps, nil)), resolver)
        try sweep.pointee.run(call)
    }

    /// Before anything is written, makes of what a finite number of the running statistics' type cannot hold an error.
    @inline(never)
    private func checkFinite() throws(Failure) {
        if policy.nonfinite != BN_NONFINITE_ERROR { return }
        for row in 0..<kept.rows {
            guard let channel = kept.moments(row).firstNonfinite else { continue }
            throw Failure(
                BN_ERROR_NONFINITE, "the variance of x in channel",
                .element(row * geometry.channels + channel, kept.moments(row)[channel].m2.magnitude),
                expected: "a finite number, as running->nonfinite says")
        }
        if running == nil { return }
        for channel in 0..<geometry.channels { try checkStored(channel) }
    }

    /// Rows that share running statistics move them one after the other, each from where the one before it left them.
    @inline(never)
    @_optimize(size)
    private func checkStored(_ channel: Int) throws(Failure) {
        var (shared, seen) = (RunningPair(0, 0), Int64(0))
        for row in 0..<kept.rows where kept[outcome: row] == BN_OUTCOME_USED {
            let isFirst = seen == 0 || groups.ownRunning
            guard let update = update(row, policy.numBatches, seen: groups.ownRunning ? 0 : seen) else { return }
            let batch = groups.averaged ? average(channel) : kept.moments(row)[channel]
            let next = update.next(isFirst ? update.stored(channel) : shared, batch)
            if !next.mean.isFinite || !next.variance.isFinite {
                let place = groups.runningRow(row) * geometry.channels + channel
                let isMean = !next.mean.isFinite
                throw Failure(
                    BN_ERROR_NONFINITE, isMean ? "running_mean" : "running_var",
                    .element(place, isMean ? next.mean : next.variance),
                    expected: "a finite number of its type after the update, as running->nonfinite says")
            }
            if groups.averaged { return }
            shared = next
            seen += 1
        }
    }

    @inline(never)
    private func resolver(_ row: Int, takes: Bool, saves: Bool = true) -> StatisticsResolver {
        let offset = groups.runningRow(row) * geometry.channels
        return StatisticsResolver(
            moments: kept.moments(row), takes: takes, eps: options.eps, source: source, outcome: kept[outcome: row],
            running: running.map { ($0.mean.from(offset), $0.variance.from(offset)) },
            factor: factor(row, policy.numBatches),
            biased: options.biasedRunningVariance,
            saved: saves ? source.saved.map { $0 + 4 * row * geometry.channels } : nil)
    }

    private func factor(_ row: Int, _ batches: UnsafePointer<Int64>?, seen: Int64 = 0) -> Double {
        policy.factor(options.momentum, (batches?[groups.runningRow(row)] ?? 0) + seen)
    }

    private func average(_ channel: Int) -> Moments { kept.average(channel, biased: options.biasedRunningVariance) }

    /// The update of a row's running statistics by its batch, after `seen` other batches of this call.
    private func update(_ row: Int, _ batches: UnsafePointer<Int64>?, seen: Int64 = 0) -> RunningUpdate? {
        guard let running else { return nil }
        let offset = groups.runningRow(row) * geometry.channels
        return RunningUpdate(
            mean: running.mean.from(offset), variance: running.variance.from(offset),
            momentum: factor(row, batches, seen: seen), biased: options.biasedRunningVariance || groups.averaged)
    }

    /// Outcomes, running statistics, and the number of batches that they have seen.
    @inline(never)
    @_optimize(size)
    private mutating func finish() {
        let skips = policy.nonfinite == BN_NONFINITE_SKIP
        for row in 0..<kept.rows where skips && kept[outcome: row] == BN_OUTCOME_USED {
            if kept.moments(row).firstNonfinite != nil { kept[outcome: row] = BN_OUTCOME_NONFINITE }
        }
        let batches = policy.begin(&running, rows: groups.runningRows, geometry)
        for row in 0..<kept.rows where kept[outcome: row] == BN_OUTCOME_USED {
            let isKept = move(row, batches, skips: skips)
            if groups.averaged {
                if !isKept { kept.loseAll() }
                batches?[0] += isKept ? 1 : 0
                break
            }
            if isKept { batches?[groups.runningRow(row)] += 1 } else { kept[outcome: row] = BN_OUTCOME_NONFINITE }
        }
        for row in 0..<kept.rows { policy.outcome?[row] = Int32(kept[outcome: row].rawValue) }
    }

    /// Moves the running statistics of a row; of none of its channels, if one would be lost that is not to be.
    @inline(never)
    @_optimize(size)
    private func move(_ row: Int, _ batches: UnsafePointer<Int64>?, skips: Bool) -> Bool {
        guard let update = update(row, batches) else { return true }
        func batch(_ channel: Int) -> Moments { groups.averaged ? average(channel) : kept.moments(row)[channel] }
        for channel in 0..<geometry.channels where skips {
            let next = update.next(update.stored(channel), batch(channel))
            if !next.mean.isFinite || !next.variance.isFinite { return false }
        }
        for channel in 0..<geometry.channels { update.apply(AnyElement.self, batch(channel), channel) }
        return true
    }
}
