// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The forward calls of the layer: each checks its arguments in the order of the header, then runs one sweep, or one for
/// each group of samples.
extension Call {
    func forwardTraining(
        _ geometry: Geometry, x: UnsafeRawPointer?, gamma: UnsafeRawPointer?, beta: UnsafeRawPointer?,
        runningMean: UnsafeMutableRawPointer?, runningVar: UnsafeMutableRawPointer?, y: UnsafeMutableRawPointer?,
        savedMean: UnsafeMutablePointer<Double>?, savedInvstd: UnsafeMutablePointer<Double>?, options: Options
    ) throws(Failure) {
        let geometry = geometry.with(options)
        let groups = options.groups ?? Groups()
        let source = options.source ?? Source()
        var forward = Forward(geometry, gamma: gamma, beta: beta, savedMean: savedMean, savedInvstd: savedInvstd)
        forward.x = try geometry.input(x, "x", geometry.xStride)
        try needBothOrNeither(runningMean, runningVar, ("running_mean", "running_var"))
        forward.y = Operand(base: y, stride: geometry.yStride)
        var memory = Memory(self)
        let input = Region("x", x, geometry, stride: geometry.xStride)
        try memory.input(input)
        try forward.addInputs(options, groups, to: &memory)
        let statistics = (
            geometry.parameters("running_mean", runningMean, rows: groups.runningRows),
            geometry.parameters("running_var", runningVar, rows: groups.runningRows)
        )
        let isPure = options.running?.newMean != nil
        if isPure {
            try memory.input(statistics.0)
            try memory.input(statistics.1)
        }
        if let running = options.running {
            try running.check(
                hasRunning: runningMean != nil, source: source, rows: groups.runningRows,
                groups: groups.statisticsRows, geometry, &memory)
        } else if source.kind != BN_SOURCE_BATCH {
            _ = try need(runningMean, "running_mean")
        }
        if !isPure {
            try memory.output(statistics.0)
            try memory.output(statistics.1)
        }
        if options.source != nil { try memory.output(source.region(groups.statisticsRows, geometry.channels)) }
        try forward.addOutputs(groups.statisticsRows, x: input, to: &memory)
        if geometry.weights != nil { try forward.geometry.weigh() }
        if options.isOneBatch {
            if forward.geometry.isSingle { throw geometry.weights == nil ? singleValue : singlePosition }
            let update = try runningMean.map { (runningMean) throws(Failure) in
                if let weights = forward.geometry.weights { try checkUnbiased(weights.total, options) }
                return RunningUpdate(
                    mean: Elements(runningMean, geometry.parameter),
                    variance: Elements(runningVar.unsafelyUnwrapped, geometry.parameter), momentum: options.momentum,
                    biased: options.biasedRunningVariance)
            }
            let sweep = sweep(forward.geometry)
            forward.fill(&sweep.pointee, self)
            sweep.pointee.reduction = .moments
            sweep.pointee.settlement = self.settlement(forward.settlement(.batch(eps: options.eps, update)))
            try sweep.pointee.run(self)
        } else {
            let running = runningMean.map {
                (
                    mean: Elements($0, geometry.parameter),
                    variance: Elements(runningVar.unsafelyUnwrapped, geometry.parameter)
                )
            }
            var training = try Training(forward, groups, options, running, self)
            try training.run()
        }
        try forward.writeMask(self)
    }

    func forwardInference(
        _ geometry: Geometry, x: UnsafeRawPointer?, gamma: UnsafeRawPointer?, beta: UnsafeRawPointer?,
        runningMean: UnsafeRawPointer?, runningVar: UnsafeRawPointer?, y: UnsafeMutableRawPointer?,
        savedMean: UnsafeMutablePointer<Double>?, savedInvstd: UnsafeMutablePointer<Double>?, options: Options
    ) throws(Failure) {
        let geometry = geometry.with(options)
        let groups = options.groups ?? Groups()
        var forward = Forward(geometry, gamma: gamma, beta: beta, savedMean: savedMean, savedInvstd: savedInvstd)
        if y != nil { forward.x = try geometry.input(x, "x", geometry.xStride) }
        forward.y = Operand(base: y, stride: geometry.yStride)
        let mean = Elements(try need(runningMean, "running_mean"), geometry.parameter)
        let variance = Elements(try need(runningVar, "running_var"), geometry.parameter)
        var memory = Memory(self)
        let input = Region("x", x, geometry, stride: geometry.xStride)
        try memory.input(input)
        try forward.addInputs(options, groups, to: &memory)
        try memory.input(geometry.parameters("running_mean", runningMean, rows: groups.runningRows))
        try memory.input(geometry.parameters("running_var", runningVar, rows: groups.runningRows))
        let source = options.source.map { $0.region(groups.statisticsRows, geometry.channels) }
        if let source { try memory.output(source) }
        try forward.addOutputs(groups.statisticsRows, x: input, to: &memory)
        if geometry.weights != nil { try forward.geometry.weigh() }
        // Groups that share everything that inference knows of are none.
        if !groups.ownRunning && !groups.ownParameters && (!groups.ownStatistics || !forward.saves) {
            let sweep = sweep(forward.geometry)
            forward.fill(&sweep.pointee, self)
            sweep.pointee.settlement = self.settlement(
                forward.settlement(.running(eps: options.eps, mean: mean, variance: variance)))
            try sweep.pointee.run(self)
        } else {
            try run(groups.slicesOfAll(geometry.outer, self)) { slice in
                let part = forward.slice(slice, groups, savedRow: groups.statisticsRow(slice.group))
                let row = groups.runningRow(slice.group) * geometry.channels
                let sweep = sweep(part.geometry)
                part.fill(&sweep.pointee, self)
                sweep.pointee.settlement = self.settlement(
                    part.settlement(.running(eps: options.eps, mean: mean.from(row), variance: variance.from(row))))
                return sweep
            }
        }
        // To bn_backward the running statistics are constants, in every channel.
        if let source { source.clear() }
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

extension Geometry {
    /// A tensor that is needed, unless it has no elements.
    @inline(never)
    func input(_ base: UnsafeRawPointer?, _ name: StaticString, _ stride: Int) throws(Failure) -> Operand {
        if base == nil && count != 0 { throw Failure(BN_ERROR_NULL, name, .null, expected: "a pointer") }
        return Operand(base: UnsafeMutableRawPointer(mutating: base), stride: stride)
    }

    @inline(never)
    func parameters(_ name: StaticString, _ base: UnsafeRawPointer?, rows: Int = 1) -> Region {
        Region(name, base, rows: rows, count: channels, size: parameter.size)
    }

    @inline(__always)
    func elements(_ base: UnsafeRawPointer?) -> Elements? { base.map { Elements($0, parameter) } }

    @inline(__always)
    func elements(_ base: UnsafeMutableRawPointer?) -> Elements? { base.map { Elements($0, parameter) } }

    @inline(never)
    func statistics(_ name: StaticString, _ base: UnsafePointer<Double>?, rows: Int = 1) -> Region {
        Region(name, base, rows: rows, count: channels, size: 8)
    }
}
