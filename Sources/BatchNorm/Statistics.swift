// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The building blocks that work on statistics alone.
func mergeMoments(
    _ call: Call, parts: Int, channels: Int, counts: UnsafePointer<Double>?, means: UnsafePointer<Double>?,
    m2s: UnsafePointer<Double>?, count: UnsafeMutablePointer<Double>?, mean: UnsafeMutablePointer<Double>?,
    m2: UnsafeMutablePointer<Double>?
) throws(Failure) {
    let channels = try channelCount(channels)
    let (rows, tooMany) = parts.multipliedReportingOverflow(by: channels)
    if parts < 0 || tooMany || rows > Int.max / 8 {
        throw Failure(
            BN_ERROR_SHAPE, "parts", .size(parts), expected: "parts * channels doubles within PTRDIFF_MAX bytes")
    }
    func input(_ pointer: UnsafePointer<Double>?, _ name: StaticString) throws(Failure) -> Region {
        if parts > 0 { _ = try need(pointer, name) }
        return Region(name, pointer, rows: parts, count: channels, size: 8)
    }
    let inputs = (try input(counts, "counts"), try input(means, "means"), try input(m2s, "m2s"))
    let outputs = (count: try need(count, "count"), mean: try need(mean, "mean"), m2: try need(m2, "m2"))
    var memory = Memory(call)
    try memory.input(inputs.0)
    try memory.input(inputs.1)
    try memory.input(inputs.2)
    try memory.output(Region("count", outputs.count, count: channels, size: 8), orExactly: inputs.0)
    try memory.output(Region("mean", outputs.mean, count: channels, size: 8), orExactly: inputs.1)
    try memory.output(Region("m2", outputs.m2, count: channels, size: 8), orExactly: inputs.2)
    if let counts { try checkCounts("counts", counts, rows) }
    for channel in 0..<channels {
        var merged = Moments.empty
        if let counts, let means, let m2s {
            for index in stride(from: channel, to: rows, by: channels) {
                merged = merged.merged(with: Moments(count: counts[index], mean: means[index], m2: m2s[index]))
            }
        }
        outputs.count[channel] = merged.count
        outputs.mean[channel] = merged.mean
        outputs.m2[channel] = merged.m2
    }
}

func inverseStd(
    _ call: Call, channels: Int, count: UnsafePointer<Double>?, m2: UnsafePointer<Double>?,
    invstd: UnsafeMutablePointer<Double>?,
    options: Options
) throws(Failure) {
    try options.refuse([.epilogue, .running, .source, .groups])
    let channels = try channelCount(channels)
    let count = try need(count, "count")
    let m2 = try need(m2, "m2")
    let invstd = try need(invstd, "invstd")
    var memory = Memory(call)
    let deviations = Region("m2", m2, count: channels, size: 8)
    try memory.input(Region("count", count, count: channels, size: 8))
    try memory.input(deviations)
    try memory.output(Region("invstd", invstd, count: channels, size: 8), orExactly: deviations)
    try checkCounts("count", count, channels)
    for channel in 0..<channels {
        invstd[channel] = Moments(count: count[channel], mean: 0, m2: m2[channel]).inverseStd(options.eps)
    }
}

func updateRunning(
    _ call: Call, channels: Int, element: kernel_element, count: UnsafePointer<Double>?, mean: UnsafePointer<Double>?,
    m2: UnsafePointer<Double>?, runningMean: UnsafeMutableRawPointer?, runningVar: UnsafeMutableRawPointer?,
    options: Options
) throws(Failure) {
    try options.refuse([.epilogue, .running, .source, .groups])
    let channels = try channelCount(channels)
    let count = try need(count, "count")
    let mean = try need(mean, "mean")
    let m2 = try need(m2, "m2")
    let runningMean = try need(runningMean, "running_mean")
    let runningVar = try need(runningVar, "running_var")
    let size = element.size
    var memory = Memory(call)
    try memory.input(Region("count", count, count: channels, size: 8))
    try memory.input(Region("mean", mean, count: channels, size: 8))
    try memory.input(Region("m2", m2, count: channels, size: 8))
    try memory.output(Region("running_mean", runningMean, count: channels, size: size))
    try memory.output(Region("running_var", runningVar, count: channels, size: size))
    try checkCounts("count", count, channels)
    for channel in 0..<channels where !options.biasedRunningVariance && count[channel] > 0 && count[channel] <= 1 {
        throw Failure(
            BN_ERROR_SINGLE_VALUE, "count", .element(channel, count[channel]),
            expected: "0 or more than 1: one value has no unbiased variance")
    }
    let update = RunningUpdate(
        mean: Elements(runningMean, element), variance: Elements(runningVar, element), momentum: options.momentum,
        biased: options.biasedRunningVariance)
    for channel in 0..<channels {
        update.apply(AnyElement.self, Moments(count: count[channel], mean: mean[channel], m2: m2[channel]), channel)
    }
}

/// 1 where a position is below its sample's length, 0 elsewhere.
func lengthWeights(
    _ call: Call, samples: Int, positions: Int, lengths: UnsafePointer<Int>?, _ number: kernel_element,
    weights: UnsafeMutableRawPointer?
) throws(Failure) {
    let (count, tooMany) = samples.multipliedReportingOverflow(by: positions)
    if samples < 0 || positions < 0 || tooMany || count > Int.max / 8 {
        throw Failure(
            BN_ERROR_SHAPE, "samples", .size(samples), expected: "samples * positions weights within PTRDIFF_MAX bytes")
    }
    if count == 0 { return }
    let lengths = try need(lengths, "lengths")
    let values = Elements(try need(weights, "weights"), number)
    var memory = Memory(call)
    try memory.input(Region("lengths", lengths, count: samples, size: MemoryLayout<Int>.size))
    try memory.output(Region("weights", values.base, count: count, size: number.size))
    for sample in 0..<samples where !(0...positions ~= lengths[sample]) {
        throw Failure(
            BN_ERROR_OPTION, "lengths", .count(sample, UInt(bitPattern: lengths[sample])), expected: "0 to positions")
    }
    for sample in 0..<samples {
        for position in 0..<positions { values[sample * positions + position] = position < lengths[sample] ? 1 : 0 }
    }
}

/// Numbers of values, or sums of weights: every count that a step gives is one that a step takes.
func checkCounts(
    _ name: StaticString, _ counts: UnsafePointer<Double>, _ number: Int, least: Double = 0
) throws(Failure) {
    for index in 0..<number {
        let count = counts[index]
        if (count == 0 || count >= Weights.least) && count >= least && count <= Weights.mostCount { continue }
        throw Failure(
            BN_ERROR_OPTION, name, .element(index, count),
            expected: count > 0 && count < .infinity
                ? "a number of values within 1e-150 to 1e250"
                : least > 0 ? "a finite number of values, more than 0" : "a finite number of values, at least 0")
    }
}
