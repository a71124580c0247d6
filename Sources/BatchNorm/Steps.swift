// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The building blocks that work on tensors: the layer's steps one by one.
extension Call {
    func moments(
        _ geometry: Geometry, x: UnsafeRawPointer?, count: UnsafeMutablePointer<Double>?,
        mean: UnsafeMutablePointer<Double>?, m2: UnsafeMutablePointer<Double>?
    ) throws(Failure) {
        var sweep = Sweep(geometry, kernels)
        sweep.x = try geometry.input(x, "x", geometry.xStride)
        let outputs = (count: try need(count, "count"), mean: try need(mean, "mean"), m2: try need(m2, "m2"))
        var memory = Memory()
        try memory.input(Region("x", x, geometry, stride: geometry.xStride))
        try memory.output(geometry.statistics("count", outputs.count))
        try memory.output(geometry.statistics("mean", outputs.mean))
        try memory.output(geometry.statistics("m2", outputs.m2))
        sweep.reduction = .moments
        sweep.settlement = .forward(ForwardSettlement(statistics: .batch(eps: 0, nil), moments: outputs))
        try sweep.run(self)
    }

    func normalize(
        _ geometry: Geometry, x: UnsafeRawPointer?, gamma: UnsafeRawPointer?, beta: UnsafeRawPointer?,
        mean: UnsafePointer<Double>?, invstd: UnsafePointer<Double>?, y: UnsafeMutableRawPointer?, options: Options
    ) throws(Failure) {
        let geometry = geometry.with(options)
        var sweep = Sweep(geometry, kernels)
        sweep.x = try geometry.input(x, "x", geometry.xStride)
        let mean = try need(mean, "mean")
        let inverseStd = try need(invstd, "invstd")
        sweep.out = try geometry.input(y, "y", geometry.yStride)
        var memory = Memory()
        let input = Region("x", x, geometry, stride: geometry.xStride)
        try memory.input(input)
        try memory.input(geometry.parameters("gamma", gamma))
        try memory.input(geometry.parameters("beta", beta))
        try memory.input(geometry.statistics("mean", mean))
        try memory.input(geometry.statistics("invstd", inverseStd))
        try memory.output(Region("y", y, geometry, stride: geometry.yStride), orExactly: input)
        sweep.settlement = .forward(
            ForwardSettlement(
                statistics: .given(mean: mean, inverseStd: inverseStd), gamma: geometry.elements(gamma),
                beta: geometry.elements(beta)))
        sweep.map = kernels.normalize
        try sweep.run(self)
    }

    func backwardReduce(
        _ geometry: Geometry, dy: UnsafeRawPointer?, x: UnsafeRawPointer?, mean: UnsafePointer<Double>?,
        invstd: UnsafePointer<Double>?, sumDy: UnsafeMutablePointer<Double>?, sumDyXHat: UnsafeMutablePointer<Double>?
    ) throws(Failure) {
        var sweep = Sweep(geometry, kernels)
        sweep.dy = try geometry.input(dy, "dy", geometry.yStride)
        sweep.x = try geometry.input(x, "x", geometry.xStride)
        let mean = try need(mean, "mean")
        let inverseStd = try need(invstd, "invstd")
        var memory = Memory()
        try memory.input(Region("dy", dy, geometry, stride: geometry.yStride))
        try memory.input(Region("x", x, geometry, stride: geometry.xStride))
        try memory.input(geometry.statistics("mean", mean))
        try memory.input(geometry.statistics("invstd", inverseStd))
        try memory.output(geometry.statistics("sum_dy", try need(sumDy, "sum_dy")))
        try memory.output(geometry.statistics("sum_dy_x_hat", try need(sumDyXHat, "sum_dy_x_hat")))
        sweep.reduction = .gradientSums(mean: mean, inverseStd: inverseStd)
        sweep.settlement = .backward(
            BackwardSettlement(
                sums: .reduced(count: geometry.count), inverseStd: inverseStd, sumDy: sumDy, sumDyXHat: sumDyXHat))
        try sweep.run(self)
    }

    func backwardApply(
        _ geometry: Geometry, dy: UnsafeRawPointer?, x: UnsafeRawPointer?, gamma: UnsafeRawPointer?,
        mean: UnsafePointer<Double>?, invstd: UnsafePointer<Double>?, count: UnsafePointer<Double>?,
        sumDy: UnsafePointer<Double>?, sumDyXHat: UnsafePointer<Double>?, dx: UnsafeMutableRawPointer?,
        options: Options
    ) throws(Failure) {
        let geometry = geometry.with(options)
        var sweep = Sweep(geometry, kernels)
        sweep.dy = try geometry.input(dy, "dy", geometry.yStride)
        sweep.x = try geometry.input(x, "x", geometry.xStride)
        let mean = try need(mean, "mean")
        let inverseStd = try need(invstd, "invstd")
        let count = try need(count, "count")
        let sums = (dy: try need(sumDy, "sum_dy"), dyXHat: try need(sumDyXHat, "sum_dy_x_hat"))
        sweep.out = try geometry.input(dx, "dx", geometry.dxStride)
        var memory = Memory()
        let gradient = Region("dy", dy, geometry, stride: geometry.yStride)
        try memory.input(gradient)
        try memory.input(Region("x", x, geometry, stride: geometry.xStride))
        try memory.input(geometry.parameters("gamma", gamma))
        try memory.input(geometry.statistics("mean", mean))
        try memory.input(geometry.statistics("invstd", inverseStd))
        try memory.input(geometry.statistics("count", count))
        try memory.input(geometry.statistics("sum_dy", sums.dy))
        try memory.input(geometry.statistics("sum_dy_x_hat", sums.dyXHat))
        try memory.output(Region("dx", dx, geometry, stride: geometry.dxStride), orExactly: gradient)
        for channel in 0..<geometry.channels where !(count[channel] > 0 && count[channel] < .infinity) {
            throw Failure(
                BN_ERROR_OPTION, "count", .element(channel, count[channel]),
                expected: "a finite number of values, more than 0")
        }
        sweep.settlement = .backward(
            BackwardSettlement(
                sums: .given(count: count, dy: sums.dy, dyXHat: sums.dyXHat), inverseStd: inverseStd, mean: mean,
                gamma: geometry.elements(gamma)))
        sweep.map = kernels.gradient
        try sweep.run(self)
    }
}
