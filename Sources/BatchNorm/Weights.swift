// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// Weights of positions: outer x inner numbers of the type that elements are computed with.
struct Weights {
    var base: UnsafeRawPointer?
    let masked: kernel_masked
    /// Numbers from one outer index to the next.
    var stride: Int
    /// Σw.
    private(set) var total = 0.0
    /// Whether one position has all of it.
    private(set) var isSingle = false

    init(_ weights: bn_weights, stride: Int) throws(Failure) {
        guard weights.struct_size == MemoryLayout<bn_weights>.size else {
            throw Failure(
                BN_ERROR_STRUCT_SIZE, "weights->struct_size", .size(weights.struct_size),
                expected: "sizeof(bn_weights), which is 24")
        }
        base = weights.values
        self.stride = stride
        switch weights.masked {
        case BN_MASKED_NORMALIZE: masked = KERNEL_MASKED_NORMALIZE
        case BN_MASKED_ZERO: masked = KERNEL_MASKED_ZERO
        case BN_MASKED_KEEP: masked = KERNEL_MASKED_KEEP
        default:
            throw Failure(
                BN_ERROR_OPTION, "weights->masked", .integer(Int(weights.masked.rawValue)),
                expected: "BN_MASKED_NORMALIZE (0), BN_MASKED_ZERO (1) or BN_MASKED_KEEP (2)")
        }
        try checkReserved(weights.reserved, "weights->reserved")
    }

    /// Looks at every weight of so many rows.
    @inline(never)
    mutating func weigh(rows: Int, _ length: Int, _ number: kernel_element) throws(Failure) {
        guard let base else { return }
        if number == KERNEL_FLOAT64 {
            try weigh(base.assumingMemoryBound(to: Double.self), rows, length)
        } else {
            try weigh(base.assumingMemoryBound(to: Float.self), rows, length)
        }
    }

    private mutating func weigh<T: Real>(_ values: UnsafePointer<T>, _ rows: Int, _ length: Int) throws(Failure) {
        total = 0
        var isSound = true
        var positive = 0
        for row in 0..<rows {
            // Eight sums, for the latency of an addition.
            var sums = SIMD8<Double>.zero
            let line = values + row * stride
            for index in 0..<length {
                let weight = line[index]
                isSound = isSound && weight >= 0 && weight <= T.greatestFiniteMagnitude
                positive += weight > 0 ? 1 : 0
                sums[index & 7] += Double(weight)
            }
            total += (sums[0] + sums[1]) + (sums[2] + sums[3]) + ((sums[4] + sums[5]) + (sums[6] + sums[7]))
        }
        isSingle = positive == 1
        if isSound && total < .infinity { return }
        for row in 0..<rows {
            for index in 0..<length where !(values[row * stride + index] >= 0 && values[row * stride + index] < .infinity) {
                throw Failure(
                    BN_ERROR_OPTION, "weights->values", .element(row * length + index, Double(values[row * stride + index])),
                    expected: "a finite number, at least 0")
            }
        }
        throw Failure(BN_ERROR_OPTION, "weights->values", .real(total), expected: "weights whose sum is finite")
    }

    /// Those of some outer indices.
    func slice(_ slice: Slice, _ number: kernel_element) -> Weights {
        var part = self
        part.base = base.map { $0 + slice.start * stride * number.size }
        part.stride = stride * slice.step
        return part
    }

    /// Σw of a block.
    func sum(_ extent: Blocks.Extent, _ number: kernel_element) -> Double {
        var part = self
        part.base = base.map { $0 + (extent.outer.lowerBound * stride + extent.inner.lowerBound) * number.size }
        try? part.weigh(rows: extent.outer.count, extent.inner.count, number)
        return part.total
    }

    /// As a tile has them, from a position on.
    func operand(_ outer: Int, _ inner: Int, _ number: kernel_element) -> kernel_operand {
        kernel_operand(
            base: base.map { UnsafeMutableRawPointer(mutating: $0) + (outer * stride + inner) * number.size },
            stride: stride, ahead: 0, last: 0)
    }
}

/// What would be padding otherwise.
func checkReserved(_ value: Int32, _ name: StaticString) throws(Failure) {
    if value != 0 { throw Failure(BN_ERROR_OPTION, name, .integer(Int(value)), expected: "0") }
}
