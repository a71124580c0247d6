// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// What a batch norm is in inference: y = scale · x + shift.
func scaleShift(
    _ call: Call, channels: Int, _ element: kernel_element, gamma: UnsafeRawPointer?, beta: UnsafeRawPointer?,
    runningMean: UnsafeRawPointer?, runningVar: UnsafeRawPointer?, scale: UnsafeMutablePointer<Double>?,
    shift: UnsafeMutablePointer<Double>?, options: Options
) throws(Failure) {
    try options.refuse([.epilogue, .running, .source, .groups])
    let channels = try channelCount(channels)
    let mean = Elements(try need(runningMean, "running_mean"), element)
    let variance = Elements(try need(runningVar, "running_var"), element)
    let scale = try need(scale, "scale")
    let shift = try need(shift, "shift")
    var memory = Memory(call)
    try memory.input(Region("gamma", gamma, count: channels, size: element.size))
    try memory.input(Region("beta", beta, count: channels, size: element.size))
    try memory.input(Region("running_mean", runningMean, count: channels, size: element.size))
    try memory.input(Region("running_var", runningVar, count: channels, size: element.size))
    try memory.output(Region("scale", scale, count: channels, size: 8))
    try memory.output(Region("shift", shift, count: channels, size: 8))
    for channel in 0..<channels where !(variance[channel] + options.eps >= 0) {
        throw Failure(
            BN_ERROR_OPTION, "running_var", .element(channel, variance[channel]),
            expected: "a number of at least -eps")
    }
    let gamma = gamma.map { Elements($0, element) }
    let beta = beta.map { Elements($0, element) }
    for channel in 0..<channels {
        let slope = (gamma?[channel] ?? 1) * inverseStd(variance: variance[channel], options.eps)
        scale[channel] = slope
        shift[channel] = (beta?[channel] ?? 0) - mean[channel] * slope
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
        let element = geometry.element
        self.geometry = geometry
        self.weight = Elements(try need(weight, "weight"), element)
        self.bias = bias.map { Elements($0, element) }
        self.scale = try need(scale, "scale")
        self.shift = try need(shift, "shift")
        self.foldedWeight = Elements(try need(foldedWeight, "folded_weight"), element)
        self.foldedBias = Elements(try need(foldedBias, "folded_bias"), element)
        var memory = Memory(call)
        if count > Int.max / element.size {
            throw Failure(
                BN_ERROR_SHAPE, "shape->outer", .size(count), expected: "a bias within PTRDIFF_MAX bytes for each")
        }
        let given = Region("weight", weight, geometry, stride: geometry.xStride)
        let givenBias = Region("bias", bias, count: count, size: element.size)
        try memory.input(given)
        try memory.input(givenBias)
        try memory.input(geometry.statistics("scale", scale))
        try memory.input(geometry.statistics("shift", shift))
        try memory.output(Region("folded_weight", foldedWeight, geometry, stride: geometry.yStride), orExactly: given)
        try memory.output(Region("folded_bias", foldedBias, count: count, size: element.size), orExactly: givenBias)
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

    /// Of one outer index; the sum of what the shifts come to.
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
