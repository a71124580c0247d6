// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The building blocks that work on statistics alone.
extension Call {
    func mergeMoments(
        parts: Int, channels: Int, counts: UnsafePointer<Double>?, means: UnsafePointer<Double>?,
        m2s: UnsafePointer<Double>?, count: UnsafeMutablePointer<Double>?, mean: UnsafeMutablePointer<Double>?,
        m2: UnsafeMutablePointer<Double>?
    ) throws(Failure) {
        let arguments = try Geometry(channels: channels, parameter: .float64).arguments(self)
        let (rows, tooMany) = parts.multipliedReportingOverflow(by: channels)
        if parts < 0 || tooMany || rows > Int.max / 8 {
            throw Failure(
                BN_ERROR_SHAPE, "parts", .size(parts), expected: "parts * channels doubles within PTRDIFF_MAX bytes")
        }
        func input(_ name: StaticString, _ pointer: UnsafePointer<Double>?) throws(Failure) -> Int {
            try arguments.array(name, pointer, rows: parts, count: channels, size: 8)
            if parts > 0 { _ = try need(pointer, name) }
            return arguments.latest
        }
        let places = (try input("counts", counts), try input("means", means), try input("m2s", m2s))
        let outputs = (
            count: try arguments.needed(statistics: "count", count, .writtenOver(places.0)),
            mean: try arguments.needed(statistics: "mean", mean, .writtenOver(places.1)),
            m2: try arguments.needed(statistics: "m2", m2, .writtenOver(places.2))
        )
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
        channels: Int, count: UnsafePointer<Double>?, m2: UnsafePointer<Double>?,
        invstd: UnsafeMutablePointer<Double>?, options: Options
    ) throws(Failure) {
        try options.refuse([.epilogue, .running, .source, .groups])
        let arguments = try Geometry(channels: channels, parameter: .float64).arguments(self)
        let count = try arguments.needed(statistics: "count", count)
        let m2 = try arguments.needed(statistics: "m2", m2)
        let invstd = try arguments.needed(statistics: "invstd", invstd, .writtenOver(arguments.latest))
        try checkCounts("count", count, channels)
        for channel in 0..<channels {
            invstd[channel] = Moments(count: count[channel], mean: 0, m2: m2[channel]).inverseStd(options.eps)
        }
    }

    func updateRunning(
        channels: Int, element: kernel_element, count: UnsafePointer<Double>?, mean: UnsafePointer<Double>?,
        m2: UnsafePointer<Double>?, runningMean: UnsafeMutableRawPointer?, runningVar: UnsafeMutableRawPointer?,
        options: Options
    ) throws(Failure) {
        try options.refuse([.epilogue, .running, .source, .groups])
        let arguments = try Geometry(channels: channels, parameter: element).arguments(self)
        let count = try arguments.needed(statistics: "count", count)
        let mean = try arguments.needed(statistics: "mean", mean)
        let m2 = try arguments.needed(statistics: "m2", m2)
        let update = RunningUpdate(
            mean: try arguments.needed(running: "running_mean", runningMean, .written),
            variance: try arguments.needed(running: "running_var", runningVar, .written),
            momentum: options.momentum, biased: options.biasedRunningVariance)
        try checkCounts("count", count, channels)
        for channel in 0..<channels where !options.biasedRunningVariance && count[channel] > 0 && count[channel] <= 1 {
            throw Failure(
                BN_ERROR_SINGLE_VALUE, "count", .element(channel, count[channel]),
                expected: "0 or more than 1: one value has no unbiased variance")
        }
        for channel in 0..<channels {
            update.apply(AnyElement.self, Moments(count: count[channel], mean: mean[channel], m2: m2[channel]), channel)
        }
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
