// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The building blocks that work on statistics alone.
extension Call {
    func mergeMoments(
        parts: Int, channels: Int, counts: UnsafePointer<Double>?, means: UnsafePointer<Double>?,
        m2s: UnsafePointer<Double>?, stride: Int, count: UnsafeMutablePointer<Double>?,
        mean: UnsafeMutablePointer<Double>?, m2: UnsafeMutablePointer<Double>?
    ) throws(Failure) {
        let arguments = try Geometry(channels: channels, parameter: .float64).arguments(self)
        let (doubles, tooMany) = parts.multipliedReportingOverflow(by: channels)
        if parts < 0 || tooMany || doubles > Int.max / 8 {
            throw Failure(
                BN_ERROR_SHAPE, "parts", .size(parts), expected: "parts * channels doubles within PTRDIFF_MAX bytes")
        }
        let stride = try arguments.stride(stride, rows: parts)
        func input(_ name: StaticString, _ base: UnsafePointer<Double>?) throws(Failure) -> (rows: Rows, place: Int) {
            let rows = try arguments.needed(
                rows: name, UnsafeMutablePointer(mutating: base), parts, stride: stride, .read)
            return (rows, arguments.latest)
        }
        let inputs = (count: try input("counts", counts), mean: try input("means", means), m2: try input("m2s", m2s))
        func output(
            _ name: StaticString, _ base: UnsafeMutablePointer<Double>?, over input: (rows: Rows, place: Int)
        ) throws(Failure) -> Rows {
            try arguments.needed(rows: name, base, 1, stride: stride, .writtenOver(input.place))
        }
        let outputs = (
            count: try output("count", count, over: inputs.count), mean: try output("mean", mean, over: inputs.mean),
            m2: try output("m2", m2, over: inputs.m2)
        )
        if let counts { try checkCounts("counts", counts, rows: 0..<parts, channels, stride: stride) }
        for channel in 0..<channels {
            var merged = Moments.empty
            for part in 0..<parts {
                merged = merged.merged(
                    with: Moments(
                        count: inputs.count.rows[part, channel], mean: inputs.mean.rows[part, channel],
                        m2: inputs.m2.rows[part, channel]))
            }
            outputs.count[0, channel] = merged.count
            outputs.mean[0, channel] = merged.mean
            outputs.m2[0, channel] = merged.m2
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
    _ name: StaticString, _ counts: UnsafePointer<Double>, rows: Range<Int> = 0..<1, _ number: Int,
    stride: Int? = nil, least: Double = 0
) throws(Failure) {
    for row in rows {
        let first = row * (stride ?? number)
        for index in first..<first + number {
            let count = counts[index]
            if (count == 0 || count >= Weights.least) && count >= least && count <= Weights.mostCount { continue }
            throw Failure(
                BN_ERROR_OPTION, name, .element(index, count),
                expected: count > 0 && count < .infinity
                    ? "a number of values within 1e-150 to 1e250"
                    : least > 0 ? "a finite number of values, more than 0" : "a finite number of values, at least 0")
        }
    }
}
