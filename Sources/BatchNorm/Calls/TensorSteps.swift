// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The building blocks that work on tensors: the layer's steps one by one.
extension Call {
    func moments(
        _ geometry: Geometry, x: UnsafeRawPointer?, count: UnsafeMutablePointer<Double>?,
        mean: UnsafeMutablePointer<Double>?, m2: UnsafeMutablePointer<Double>?
    ) throws(Failure) {
        let arguments = geometry.arguments(self)
        let x = try arguments.tensor("x", x, stride: geometry.xStride)
        try geometry.enterWeights(arguments)
        let outputs = (
            count: try arguments.needed(statistics: "count", count, .written),
            mean: try arguments.needed(statistics: "mean", mean, .written),
            m2: try arguments.needed(statistics: "m2", m2, .written)
        )
        var geometry = geometry
        try geometry.weigh()
        let sweep = sweep(geometry)
        sweep.pointee.x = x
        sweep.pointee.reduction = .moments
        sweep.pointee.finalize = finalize(ForwardFinalize(statistics: .batch(eps: 0, nil), moments: outputs))
        try sweep.pointee.run(self)
    }

    func normalize(
        _ geometry: Geometry, x: UnsafeRawPointer?, gamma: UnsafeRawPointer?, beta: UnsafeRawPointer?,
        mean: UnsafePointer<Double>?, invstd: UnsafePointer<Double>?, y: UnsafeMutableRawPointer?, options: Options
    ) throws(Failure) {
        try options.refuse([.source, .groups])
        let geometry = options.geometry(geometry)
        let arguments = options.arguments(self, geometry)
        var forward = try Forward(geometry, x: x, gamma: gamma, beta: beta, options, arguments)
        let mean = try arguments.needed(statistics: "mean", mean)
        let inverseStd = try arguments.needed(statistics: "invstd", invstd)
        try forward.enterOutputs(y: y, isNeeded: true, options, arguments)
        if geometry.weights != nil { try forward.geometry.weigh() }
        let sweep = forward.sweep(self)
        sweep.pointee.finalize = finalize(forward.finalize(.given(mean: mean, inverseStd: inverseStd)))
        try sweep.pointee.run(self)
        try forward.writeMask(self)
    }

    func backwardReduce(
        _ geometry: Geometry, dy: UnsafeRawPointer?, x: UnsafeRawPointer?, mean: UnsafePointer<Double>?,
        invstd: UnsafePointer<Double>?, sumDy: UnsafeMutablePointer<Double>?, sumDyXHat: UnsafeMutablePointer<Double>?
    ) throws(Failure) {
        let arguments = geometry.arguments(self)
        var backward = Backward(
            geometry: geometry, dy: try arguments.tensor("dy", dy, stride: geometry.yStride),
            x: try arguments.tensor("x", x, stride: geometry.xStride),
            mean: try arguments.needed(statistics: "mean", mean),
            inverseStd: try arguments.needed(statistics: "invstd", invstd))
        try geometry.enterWeights(arguments)
        let sumDy = try arguments.needed(statistics: "sum_dy", sumDy, .written)
        let sumDyXHat = try arguments.needed(statistics: "sum_dy_x_hat", sumDyXHat, .written)
        backward.setWeights(wantsDx: false)
        try backward.geometry.weigh()
        let sweep = backward.sweep(self, reduces: true, maps: false)
        var finalize = backward.finalize(.reduced(count: backward.geometry.values))
        finalize.sumDy = sumDy
        finalize.sumDyXHat = sumDyXHat
        sweep.pointee.finalize = self.finalize(finalize)
        try sweep.pointee.run(self)
    }

    func backwardApply(
        _ geometry: Geometry, dy: UnsafeRawPointer?, x: UnsafeRawPointer?, gamma: UnsafeRawPointer?,
        mean: UnsafePointer<Double>?, invstd: UnsafePointer<Double>?, count: UnsafePointer<Double>?,
        sumDy: UnsafePointer<Double>?, sumDyXHat: UnsafePointer<Double>?, dx: UnsafeMutableRawPointer?,
        options: Options
    ) throws(Failure) {
        try options.refuse([.epilogue, .source, .groups])
        let geometry = options.geometry(geometry)
        let arguments = options.arguments(self, geometry)
        let dyOperand = try arguments.tensor("dy", dy, stride: geometry.yStride)
        let placeOfDy = arguments.latest
        let x = try arguments.tensor("x", x, stride: geometry.xStride)
        let gamma = try arguments.parameter("gamma", gamma)
        var backward = Backward(
            geometry: geometry, dy: dyOperand, x: x, gamma: gamma,
            mean: try arguments.needed(statistics: "mean", mean),
            inverseStd: try arguments.needed(statistics: "invstd", invstd))
        let count = try arguments.needed(statistics: "count", count)
        let sumDy = try arguments.needed(statistics: "sum_dy", sumDy)
        let sumDyXHat = try arguments.needed(statistics: "sum_dy_x_hat", sumDyXHat)
        try geometry.enterWeights(arguments)
        backward.dx = try arguments.tensor("dx", dx, stride: geometry.dxStride, .writtenOver(placeOfDy))
        backward.setWeights(wantsDx: dx != nil)
        try checkCounts("count", count, geometry.channels, least: Weights.least)
        try backward.geometry.weigh()
        let sweep = backward.sweep(self, reduces: false, maps: true)
        sweep.pointee.finalize = finalize(backward.finalize(.given(count: count, dy: sumDy, dyXHat: sumDyXHat)))
        try sweep.pointee.run(self)
    }
}
