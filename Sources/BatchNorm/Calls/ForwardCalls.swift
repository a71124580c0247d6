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
        let geometry = options.geometry(geometry)
        let arguments = try options.arguments(self, geometry)
        var forward = try Forward(geometry, x: x, gamma: gamma, beta: beta, options, arguments)
        try needBothOrNeither(runningMean, runningVar, ("running_mean", "running_var"))
        let running =
            options.isOneBatch
            ? try arguments.running(runningMean, runningVar, .written)
            : try enterRunning(runningMean, runningVar, options, arguments)
        try forward.enterOutputs(y: y, savedMean: savedMean, savedInvstd: savedInvstd, options, arguments)
        if geometry.weights != nil { try forward.geometry.weigh() }
        if options.isOneBatch {
            try trainOneBatch(forward, running, options)
        } else {
            var training = try GroupedTraining(forward, options, running, self)
            try training.run()
        }
        try forward.writeMask(self)
    }

    /// Running statistics are outputs, unless the call gives new ones; then they are inputs, and all that makes new ones
    /// follows them.
    @inline(never)
    private func enterRunning(
        _ mean: UnsafeMutableRawPointer?, _ variance: UnsafeMutableRawPointer?, _ options: Options,
        _ arguments: ArgumentList
    ) throws(Failure) -> RunningStatistics? {
        let isPure = options.running?.newMean != nil
        let entered = isPure ? try arguments.running(mean, variance, .read) : nil
        let source = options.source ?? Source()
        if let running = options.running {
            try running.enter(hasRunning: mean != nil, source: source, arguments)
        } else if source.kind != BN_SOURCE_BATCH {
            _ = try need(mean, "running_mean")
        }
        return isPure ? entered : try arguments.running(mean, variance, .written)
    }

    @inline(__always)
    private func trainOneBatch(
        _ forward: Forward, _ running: RunningStatistics?, _ options: Options
    ) throws(Failure) {
        let weights = forward.geometry.weights
        if forward.geometry.isSingle { throw weights == nil ? singleValue : singlePosition }
        var update: RunningUpdate?
        if let running {
            if let weights { try checkUnbiased(weights.total, options) }
            update = RunningUpdate(
                mean: running.mean, variance: running.variance, momentum: options.momentum,
                biased: options.biasedRunningVariance)
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
        let geometry = options.geometry(geometry)
        let arguments = try options.arguments(self, geometry)
        var forward = try Forward(geometry, x: x, isNeeded: y != nil, gamma: gamma, beta: beta, options, arguments)
        let mean = try arguments.needed(running: "running_mean", runningMean)
        let variance = try arguments.needed(running: "running_var", runningVar)
        try forward.enterOutputs(y: y, savedMean: savedMean, savedInvstd: savedInvstd, options, arguments)
        if geometry.weights != nil { try forward.geometry.weigh() }
        let groups = options.groups ?? Groups()
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
        options.source?.saved?.update(repeating: 0, count: 4 * groups.statisticsRows * geometry.channels)
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
