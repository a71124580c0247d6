// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The building blocks that work on tensors: the layer's steps one by one.
extension Call {
    func moments(
        _ geometry: Geometry, x: UnsafeRawPointer?, count: UnsafeMutablePointer<Double>?,
        mean: UnsafeMutablePointer<Double>?, m2: UnsafeMutablePointer<Double>?
    ) throws(Failure) {
        var geometry = geometry
        let x = try geometry.input(x, "x", geometry.xStride)
        let outputs = (count: try need(count, "count"), mean: try need(mean, "mean"), m2: try need(m2, "m2"))
        var memory = Memory(self)
        try memory.input(Region("x", x.base, geometry, stride: geometry.xStride))
        try geometry.addWeights(to: &memory)
        try memory.output(geometry.statistics("count", outputs.count))
        try memory.output(geometry.statistics("mean", outputs.mean))
        try memory.output(geometry.statistics("m2", outputs.m2))
        try geometry.weigh()
        let sweep = sweep(geometry)
        sweep.pointee.x = x
        sweep.pointee.reduction = .moments
        sweep.pointee.settlement = self.settlement(ForwardSettlement(statistics: .batch(eps: 0, nil), moments: outputs))
        try sweep.pointee.run(self)
    }

    func normalize(
        _ geometry: Geometry, x: UnsafeRawPointer?, gamma: UnsafeRawPointer?, beta: UnsafeRawPointer?,
        mean: UnsafePointer<Double>?, invstd: UnsafePointer<Double>?, y: UnsafeMutableRawPointer?, options: Options
    ) throws(Failure) {
        let geometry = geometry.with(options)
        try options.refuse([.source, .groups])
        var forward = Forward(geometry, gamma: gamma, beta: beta, savedMean: nil, savedInvstd: nil)
        forward.x = try geometry.input(x, "x", geometry.xStride)
        let mean = try need(mean, "mean")
        let inverseStd = try need(invstd, "invstd")
        forward.y = try geometry.input(y, "y", geometry.yStride)
        var memory = Memory(self)
        let input = Region("x", x, geometry, stride: geometry.xStride)
        try memory.input(input)
        try forward.addInputs(options, Groups(), to: &memory)
        try memory.input(geometry.statistics("mean", mean))
        try memory.input(geometry.statistics("invstd", inverseStd))
        try forward.addOutputs(1, x: input, to: &memory)
        if geometry.weights != nil { try forward.geometry.weigh() }
        let sweep = sweep(forward.geometry)
        forward.fill(&sweep.pointee, self)
        sweep.pointee.settlement = self.settlement(forward.settlement(.given(mean: mean, inverseStd: inverseStd)))
        try sweep.pointee.run(self)
        try forward.writeMask(self)
    }

    func backwardReduce(
        _ geometry: Geometry, dy: UnsafeRawPointer?, x: UnsafeRawPointer?, mean: UnsafePointer<Double>?,
        invstd: UnsafePointer<Double>?, sumDy: UnsafeMutablePointer<Double>?, sumDyXHat: UnsafeMutablePointer<Double>?
    ) throws(Failure) {
        var backward = Backward(
            geometry: geometry, dy: try geometry.input(dy, "dy", geometry.yStride),
            x: try geometry.input(x, "x", geometry.xStride), mean: try need(mean, "mean"),
            inverseStd: try need(invstd, "invstd"))
        var memory = Memory(self)
        try memory.input(Region("dy", dy, geometry, stride: geometry.yStride))
        try memory.input(Region("x", x, geometry, stride: geometry.xStride))
        try memory.input(geometry.statistics("mean", mean))
        try memory.input(geometry.statistics("invstd", invstd))
        try backward.geometry.addWeights(to: &memory)
        backward.tellOfWeights()
        try memory.output(geometry.statistics("sum_dy", try need(sumDy, "sum_dy")))
        try memory.output(geometry.statistics("sum_dy_x_hat", try need(sumDyXHat, "sum_dy_x_hat")))
        try backward.geometry.weigh()
        let sweep = sweep(backward.geometry)
        backward.fill(&sweep.pointee, self, reduces: true, maps: false)
        var settlement = backward.settlement(.reduced(count: backward.geometry.values))
        settlement.sumDy = sumDy
        settlement.sumDyXHat = sumDyXHat
        sweep.pointee.settlement = self.settlement(settlement)
        try sweep.pointee.run(self)
    }

    func backwardApply(
        _ geometry: Geometry, dy: UnsafeRawPointer?, x: UnsafeRawPointer?, gamma: UnsafeRawPointer?,
        mean: UnsafePointer<Double>?, invstd: UnsafePointer<Double>?, count: UnsafePointer<Double>?,
        sumDy: UnsafePointer<Double>?, sumDyXHat: UnsafePointer<Double>?, dx: UnsafeMutableRawPointer?,
        options: Options
    ) throws(Failure) {
        let geometry = geometry.with(options)
        try options.refuse([.epilogue, .source, .groups])
        var backward = Backward(
            geometry: geometry, dy: try geometry.input(dy, "dy", geometry.yStride),
            x: try geometry.input(x, "x", geometry.xStride), gamma: geometry.elements(gamma),
            mean: try need(mean, "mean"), inverseStd: try need(invstd, "invstd"))
        let count = try need(count, "count")
        let sums = (dy: try need(sumDy, "sum_dy"), dyXHat: try need(sumDyXHat, "sum_dy_x_hat"))
        backward.dx = try geometry.input(dx, "dx", geometry.dxStride)
        var memory = Memory(self)
        let gradient = Region("dy", dy, geometry, stride: geometry.yStride)
        try memory.input(gradient)
        try memory.input(Region("x", x, geometry, stride: geometry.xStride))
        try memory.input(geometry.parameters("gamma", gamma))
        try memory.input(geometry.statistics("mean", mean))
        try memory.input(geometry.statistics("invstd", invstd))
        try memory.input(geometry.statistics("count", count))
        try memory.input(geometry.statistics("sum_dy", sums.dy))
        try memory.input(geometry.statistics("sum_dy_x_hat", sums.dyXHat))
        try backward.geometry.addWeights(to: &memory)
        backward.tellOfWeights()
        try memory.output(Region("dx", dx, geometry, stride: geometry.dxStride), orExactly: gradient)
        try checkCounts("count", count, geometry.channels, least: Weights.least)
        try backward.geometry.weigh()
        let sweep = sweep(backward.geometry)
        backward.fill(&sweep.pointee, self, reduces: false, maps: true)
        sweep.pointee.settlement = self.settlement(
            backward.settlement(.given(count: count, dy: sums.dy, dyXHat: sums.dyXHat)))
        try sweep.pointee.run(self)
    }
}
