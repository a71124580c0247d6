// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The layer calls: each checks its arguments in the order of the header, then runs one sweep.
extension Call {
    func forwardTraining(
        _ geometry: Geometry, x: UnsafeRawPointer?, gamma: UnsafeRawPointer?, beta: UnsafeRawPointer?,
        runningMean: UnsafeMutableRawPointer?, runningVar: UnsafeMutableRawPointer?, y: UnsafeMutableRawPointer?,
        savedMean: UnsafeMutablePointer<Double>?, savedInvstd: UnsafeMutablePointer<Double>?, options: Options
    ) throws(Failure) {
        let geometry = geometry.with(options)
        var sweep = Sweep(geometry, kernels)
        sweep.x = try geometry.input(x, "x", geometry.xStride)
        try needBothOrNeither(runningMean, runningVar, ("running_mean", "running_var"))
        var memory = Memory()
        let input = Region("x", x, geometry, stride: geometry.xStride)
        try memory.input(input)
        try memory.input(geometry.parameters("gamma", gamma))
        try memory.input(geometry.parameters("beta", beta))
        try memory.output(geometry.parameters("running_mean", runningMean))
        try memory.output(geometry.parameters("running_var", runningVar))
        try memory.output(Region("y", y, geometry, stride: geometry.yStride), orExactly: input)
        try memory.output(geometry.statistics("saved_mean", savedMean))
        try memory.output(geometry.statistics("saved_invstd", savedInvstd))
        if geometry.count == 1 {
            throw Failure(
                BN_ERROR_SINGLE_VALUE, "values per channel (outer * inner)", .integer(1),
                expected: "more than 1 in training: one value has no variance")
        }
        let update = runningMean.map {
            RunningUpdate(
                mean: Elements($0, geometry.parameter),
                variance: Elements(runningVar.unsafelyUnwrapped, geometry.parameter), momentum: options.momentum,
                biased: options.biasedRunningVariance)
        }
        sweep.reduction = .moments
        sweep.settlement = .forward(
            ForwardSettlement(
                statistics: .batch(eps: options.eps, update), gamma: geometry.elements(gamma),
                beta: geometry.elements(beta), savedMean: savedMean, savedInverseStd: savedInvstd))
        if y != nil { sweep.map = kernels.normalize }
        sweep.out = Operand(base: y, stride: geometry.yStride)
        try sweep.run(self)
    }

    func forwardInference(
        _ geometry: Geometry, x: UnsafeRawPointer?, gamma: UnsafeRawPointer?, beta: UnsafeRawPointer?,
        runningMean: UnsafeRawPointer?, runningVar: UnsafeRawPointer?, y: UnsafeMutableRawPointer?,
        savedMean: UnsafeMutablePointer<Double>?, savedInvstd: UnsafeMutablePointer<Double>?, options: Options
    ) throws(Failure) {
        let geometry = geometry.with(options)
        var sweep = Sweep(geometry, kernels)
        if y != nil { sweep.x = try geometry.input(x, "x", geometry.xStride) }
        let runningMean = try need(runningMean, "running_mean")
        let runningVar = try need(runningVar, "running_var")
        var memory = Memory()
        let input = Region("x", x, geometry, stride: geometry.xStride)
        try memory.input(input)
        try memory.input(geometry.parameters("gamma", gamma))
        try memory.input(geometry.parameters("beta", beta))
        try memory.input(geometry.parameters("running_mean", runningMean))
        try memory.input(geometry.parameters("running_var", runningVar))
        try memory.output(Region("y", y, geometry, stride: geometry.yStride), orExactly: input)
        try memory.output(geometry.statistics("saved_mean", savedMean))
        try memory.output(geometry.statistics("saved_invstd", savedInvstd))
        sweep.settlement = .forward(
            ForwardSettlement(
                statistics: .running(
                    eps: options.eps, mean: Elements(runningMean, geometry.parameter),
                    variance: Elements(runningVar, geometry.parameter)),
                gamma: geometry.elements(gamma), beta: geometry.elements(beta), savedMean: savedMean,
                savedInverseStd: savedInvstd))
        if y != nil { sweep.map = kernels.normalize }
        sweep.out = Operand(base: y, stride: geometry.yStride)
        try sweep.run(self)
    }

    func backward(
        _ geometry: Geometry, dy: UnsafeRawPointer?, x: UnsafeRawPointer?, gamma: UnsafeRawPointer?,
        savedMean: UnsafePointer<Double>?, savedInvstd: UnsafePointer<Double>?, dx: UnsafeMutableRawPointer?,
        dgamma: UnsafeMutableRawPointer?, dbeta: UnsafeMutableRawPointer?, options: Options
    ) throws(Failure) {
        let geometry = geometry.with(options)
        var sweep = Sweep(geometry, kernels)
        sweep.dy = try geometry.input(dy, "dy", geometry.yStride)
        // Without x nothing but Σdy is asked of the reduction, and dy serves for what it reads there.
        let withoutX = x == nil && options.frozen && dgamma == nil
        sweep.x = withoutX ? sweep.dy : try geometry.input(x, "x", geometry.xStride)
        let mean = try need(savedMean, "saved_mean")
        let inverseStd = try need(savedInvstd, "saved_invstd")
        var memory = Memory()
        let gradient = Region("dy", dy, geometry, stride: geometry.yStride)
        try memory.input(gradient)
        try memory.input(Region("x", x, geometry, stride: geometry.xStride))
        try memory.input(geometry.parameters("gamma", gamma))
        try memory.input(geometry.statistics("saved_mean", mean))
        try memory.input(geometry.statistics("saved_invstd", inverseStd))
        try memory.output(Region("dx", dx, geometry, stride: geometry.dxStride), orExactly: gradient)
        try memory.output(geometry.parameters("dgamma", dgamma))
        try memory.output(geometry.parameters("dbeta", dbeta))
        let needsSums = dgamma != nil || dbeta != nil || (dx != nil && !options.frozen)
        if needsSums { sweep.reduction = .gradientSums(mean: mean, inverseStd: inverseStd) }
        sweep.settlement = .backward(
            BackwardSettlement(
                sums: needsSums ? .reduced(count: geometry.count) : .none, inverseStd: inverseStd, mean: mean,
                frozen: options.frozen, gamma: geometry.elements(gamma), dgamma: geometry.elements(dgamma),
                dbeta: geometry.elements(dbeta)))
        // With constants for statistics, dx is dy scaled: normalized, with a mean of 0.
        if dx != nil { sweep.map = options.frozen ? kernels.normalize : kernels.gradient }
        sweep.mapsDy = options.frozen
        sweep.out = Operand(base: dx, stride: geometry.dxStride)
        try sweep.run(self)
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
    func parameters(_ name: StaticString, _ base: UnsafeRawPointer?) -> Region {
        Region(name, base, count: channels, size: parameter.size)
    }

    @inline(__always)
    func elements(_ base: UnsafeRawPointer?) -> Elements? { base.map { Elements($0, parameter) } }

    @inline(__always)
    func elements(_ base: UnsafeMutableRawPointer?) -> Elements? { base.map { Elements($0, parameter) } }

    @inline(never)
    func statistics(_ name: StaticString, _ base: UnsafePointer<Double>?) -> Region {
        Region(name, base, count: channels, size: 8)
    }
}
