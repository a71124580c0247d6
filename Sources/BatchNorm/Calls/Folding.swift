// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

extension Call {
    /// In inference a batch norm is y = scale · x + shift.
    func scaleShift(
        channels: Int, _ element: kernel_element, gamma: UnsafeRawPointer?, beta: UnsafeRawPointer?,
        runningMean: UnsafeRawPointer?, runningVar: UnsafeRawPointer?, scale: UnsafeMutablePointer<Double>?,
        shift: UnsafeMutablePointer<Double>?, options: Options
    ) throws(Failure) {
        try options.refuse([.epilogue, .running, .source, .groups])
        let arguments = try Geometry(channels: channels, parameter: element).arguments(self)
        let (gamma, beta) = try arguments.parameters(("gamma", "beta"), gamma, beta)
        let mean = try arguments.needed(running: "running_mean", runningMean)
        let variance = try arguments.needed(running: "running_var", runningVar)
        let scale = try arguments.needed(statistics: "scale", scale, .written)
        let shift = try arguments.needed(statistics: "shift", shift, .written)
        for channel in 0..<channels where !(variance[channel] + options.eps >= 0) {
            throw Failure(
                BN_ERROR_OPTION, "running_var", .element(channel, variance[channel]),
                expected: "a number of at least -eps")
        }
        for channel in 0..<channels {
            let slope = (gamma?[channel] ?? 1) * BatchNorm.inverseStd(variance: variance[channel], options.eps)
            scale[channel] = slope
            shift[channel] = (beta?[channel] ?? 0) - mean[channel] * slope
        }
    }
}

/// The weights and the bias of a layer beside a batch norm, which does what the batch norm did.
struct Folding {
    private let geometry: Geometry
    private let weight: Elements
    private let bias: Elements?
    private let scale: UnsafePointer<Double>
    private let shift: UnsafePointer<Double>
    private let foldedWeight: Elements
    private let foldedBias: Elements

    init(
        _ call: Call, _ geometry: Geometry, biases count: Int, weight: UnsafeRawPointer?, bias: UnsafeRawPointer?,
        scale: UnsafePointer<Double>?, shift: UnsafePointer<Double>?, foldedWeight: UnsafeMutableRawPointer?,
        foldedBias: UnsafeMutableRawPointer?
    ) throws(Failure) {
        try geometry.refuseWeights()
        self.geometry = geometry
        if count > Int.max / geometry.elementSize {
            throw Failure(
                BN_ERROR_SHAPE, "shape->outer", .size(count), expected: "a bias within PTRDIFF_MAX bytes for each")
        }
        func elements(_ base: UnsafeRawPointer) -> Elements { Elements(base, geometry.element) }
        let arguments = geometry.arguments(call)
        _ = try arguments.tensor("weight", weight, stride: geometry.xStride)
        let placeOfWeight = arguments.latest
        self.weight = elements(try need(weight, "weight"))
        try arguments.array("bias", bias, count: count, size: geometry.elementSize)
        let placeOfBias = arguments.latest
        self.bias = bias.map(elements)
        self.scale = try arguments.needed(statistics: "scale", scale)
        self.shift = try arguments.needed(statistics: "shift", shift)
        _ = try arguments.tensor(
            "folded_weight", foldedWeight, stride: geometry.yStride, isNeeded: false, .writtenOver(placeOfWeight))
        self.foldedWeight = elements(try need(foldedWeight, "folded_weight"))
        try arguments.array(
            "folded_bias", foldedBias, count: count, size: geometry.elementSize, .writtenOver(placeOfBias))
        self.foldedBias = elements(try need(foldedBias, "folded_bias"))
    }

    func intoPrevious() {
        for channel in 0..<geometry.channels {
            foldedBias[channel] = (bias?[channel] ?? 0) * scale[channel] + shift[channel]
        }
        if geometry.inner == 0 { return }
        for outer in 0..<geometry.outer { _ = foldWeights(outer) }
    }

    func intoNext() {
        for outer in 0..<geometry.outer {
            // The old weights are read before the new ones take their place.
            let shifted = foldWeights(outer)
            foldedBias[outer] = (bias?[outer] ?? 0) + shifted
        }
    }

    /// Folds the weights of one outer index, and gives the sum of shift · weight.
    private func foldWeights(_ outer: Int) -> Double {
        var sum = 0.0
        for channel in 0..<geometry.channels {
            var weights = 0.0
            for index in 0..<geometry.inner {
                let place = channel * geometry.inner + index
                let value = weight[outer * geometry.xStride + place]
                weights += value
                foldedWeight[outer * geometry.yStride + place] = value * scale[channel]
            }
            sum += shift[channel] * weights
        }
        return sum
    }
}
