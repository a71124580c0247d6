// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The forward calls of the layer: each enters its arguments in the order of the header, then runs one sweep, or one for
/// each group of samples.
extension Call {
    func forwardTraining(
        _ geometry: Geometry, x: UnsafeRawPointer?, gamma: UnsafeRawPointer?, beta: UnsafeRawPointer?,
        runningMean: UnsafeMutableRawPointer?, runningVar: UnsafeMutableRawPointer?, y: UnsafeMutableRawPointer?,
        savedMean: UnsafeMutablePointer<Double>?, savedInvstd: UnsafeMutablePointer<Double>?, options: Options
    ) throws(Failure) {
        let groups = options.groups ?? Groups()
        var arguments = ArgumentList(self, geometry.with(options))
        var forward = Forward(arguments.geometry)
        try forward.enterInputs(x: x, gamma: gamma, beta: beta, options, groups, &arguments)
        try needBothOrNeither(runningMean, runningVar, ("running_mean", "running_var"))
        let running = try enterRunning(runningMean, runningVar, options, groups, &arguments)
        if let saved = options.source?.saved {
            _ = try arguments.output(statistics: "source->saved", saved, rows: 4 * groups.statisticsRows)
        }
        try forward.enterOutputs(
            y: y, savedMean: savedMean, savedInvstd: savedInvstd, rows: groups.statisticsRows, &arguments)
        if geometry.weights != nil { try forward.geometry.weigh() }
        if options.isOneBatch {
            try trainOneBatch(forward, running, options)
        } else {
            var training = try GroupedTraining(forward, groups, options, running, self)
            try training.run()
        }
        try forward.writeMask(self)
    }

    typealias RunningStatistics = (mean: Elements, variance: Elements)

    /// Running statistics are outputs, unless the call gives new ones; then they are inputs, and all that makes new ones
    /// follows them.
    @inline(__always)
    private func enterRunning(
        _ mean: UnsafeMutableRawPointer?, _ variance: UnsafeMutableRawPointer?, _ options: Options, _ groups: Groups,
        _ arguments: inout ArgumentList
    ) throws(Failure) -> RunningStatistics? {
        let rows = groups.runningRows
        if options.isOneBatch {
            return try pair(
                arguments.output(parameters: "running_mean", mean, rows: rows),
                arguments.output(parameters: "running_var", variance, rows: rows))
        }
        let isPure = options.running?.newMean != nil
        var entered: RunningStatistics?
        if isPure {
            entered = try pair(
                arguments.parameters("running_mean", mean, rows: rows),
                arguments.parameters("running_var", variance, rows: rows))
        }
        let source = options.source ?? Source()
        if let running = options.running {
            try running.enter(
                hasRunning: mean != nil, source: source, rows: rows, groups: groups.statisticsRows, &arguments)
        } else if source.kind != BN_SOURCE_BATCH {
            _ = try need(mean, "running_mean")
        }
        if isPure { return entered }
        return try pair(
            arguments.output(parameters: "running_mean", mean, rows: rows),
            arguments.output(parameters: "running_var", variance, rows: rows))
    }

    private func pair(_ mean: Elements?, _ variance: Elements?) -> RunningStatistics? {
        guard let mean, let variance else { return nil }
        return (mean, variance)
    }

    @inline(__always)
    private func trainOneBatch(
        _ forward: Forward, _ running: RunningStatistics?, _ options: Options
    ) throws(Failure) {
        let weights = forward.geometry.weights
        if forward.geometry.isSingle { throw weights == nil ? singleValue : singlePosition }
        if let weights, running != nil { try checkUnbiased(weights.total, options) }
        let update = running.map {
            RunningUpdate(
                mean: $0.mean, variance: $0.variance, momentum: options.momentum, biased: options.biasedRunningVariance)
        }
        let sweep = forward.sweep(self)
        sweep.pointee.reduction = .moments
        sweep.pointee.finalize = finalize(forward.finalize(.batch(eps: options.eps, update)))
        try sweep.pointee.run(self)
    }

    func forwardInference(
        _ geometry: Geometry, x: UnsafeRawPointer?, gamma: UnsafeRawPointer?, beta: UnsafeRawPointer?,
        runningMean: UnsafeRawPointer?, runningVar: UnsafeRawPointer?, y: UnsafeMutableRawPointer?,
        savedMean: UnsafeMutablePointer<Double>?, savedInvstd: UnsafeMutablePointer<Double>?, options: Options
    ) throws(Failure) {
        let groups = options.groups ?? Groups()
        var arguments = ArgumentList(self, geometry.with(options))
        var forward = Forward(arguments.geometry)
        try forward.enterInputs(x: x, isNeeded: y != nil, gamma: gamma, beta: beta, options, groups, &arguments)
        let mean = try need(
            arguments.parameters("running_mean", runningMean, rows: groups.runningRows), "running_mean")
        let variance = try need(
            arguments.parameters("running_var", runningVar, rows: groups.runningRows), "running_var")
        let saved = options.source?.saved
        if saved != nil {
            _ = try arguments.output(statistics: "source->saved", saved, rows: 4 * groups.statisticsRows)
        }
        try forward.enterOutputs(
            y: y, savedMean: savedMean, savedInvstd: savedInvstd, rows: groups.statisticsRows, &arguments)
        if geometry.weights != nil { try forward.geometry.weigh() }
        // Groups that share everything that inference knows of are none.
        if !groups.ownRunning && !groups.ownParameters && (!groups.ownStatistics || !forward.saves) {
            let sweep = forward.sweep(self)
            sweep.pointee.finalize = finalize(
                forward.finalize(.running(eps: options.eps, mean: mean, variance: variance)))
            try sweep.pointee.run(self)
        } else {
            try run(groups.slicesOfAll(geometry.outer, self)) { slice in
                let part = forward.slice(slice, groups)
                let row = groups.runningRow(slice.group) * geometry.channels
                let sweep = part.sweep(self)
                sweep.pointee.finalize = finalize(
                    part.finalize(.running(eps: options.eps, mean: mean.from(row), variance: variance.from(row))))
                return sweep
            }
        }
        // To bn_backward the running statistics are constants, in every channel.
        saved?.update(repeating: 0, count: 4 * groups.statisticsRows * geometry.channels)
        try forward.writeMask(self)
    }

    var singleValue: Failure {
        Failure(
            BN_ERROR_SINGLE_VALUE, "values per channel (outer * inner)", .integer(1),
            expected: "more than 1 in training: one value has no variance")
    }

    var singlePosition: Failure {
        Failure(
            BN_ERROR_SINGLE_VALUE, "the number of positions with a weight above 0", .integer(1),
            expected: "0 or more than 1 in training: one value has no variance")
    }

    /// Weights are frequencies where a variance is unbiased.
    func checkUnbiased(_ total: Double, _ options: Options) throws(Failure) {
        if !options.biasedRunningVariance && total > 0 && total <= 1 {
            throw Failure(
                BN_ERROR_SINGLE_VALUE, "the sum of the weights", .real(total),
                expected: "0 or more than 1, for an unbiased running_var")
        }
    }
}
