// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

extension Call {
    /// Writes 1 where a position is below its sample's length, and 0 elsewhere.
    func lengthWeights(
        samples: Int, positions: Int, lengths: UnsafePointer<Int>?, _ number: kernel_element,
        weights: UnsafeMutableRawPointer?
    ) throws(Failure) {
        let (count, tooMany) = samples.multipliedReportingOverflow(by: positions)
        if samples < 0 || positions < 0 || tooMany || count > Int.max / 8 {
            throw Failure(
                BN_ERROR_SHAPE, "samples", .size(samples),
                expected: "samples * positions weights within PTRDIFF_MAX bytes")
        }
        if count == 0 { return }
        let lengths = try need(lengths, "lengths")
        let values = Elements(try need(weights, "weights"), number)
        let arguments = try Geometry(channels: 1, parameter: number).arguments(self)
        try arguments.array("lengths", lengths, count: samples, size: MemoryLayout<Int>.size)
        try arguments.array("weights", values.base, count: count, size: number.size, .written)
        for sample in 0..<samples where !(0...positions ~= lengths[sample]) {
            throw Failure(
                BN_ERROR_OPTION, "lengths", .count(sample, UInt(bitPattern: lengths[sample])),
                expected: "0 to positions")
        }
        for sample in 0..<samples {
            for position in 0..<positions { values[sample * positions + position] = position < lengths[sample] ? 1 : 0 }
        }
    }
}
