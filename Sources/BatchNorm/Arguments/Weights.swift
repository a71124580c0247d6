// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// Weights of positions: outer x inner numbers of the type that elements are computed with.
struct Weights {
    var base: UnsafeRawPointer?
    let masked: kernel_masked
    /// Numbers from one outer index to the next.
    var stride: Int
    /// The range of a count, which is a sum of weights, or a sum of counts.
    static let least = Double.leastWeight
    static let mostCount = 1e250

    /// Σw.
    private(set) var total = 0.0
    /// True if one position has all of it.
    private(set) var isSingle = false

    init(_ weights: bn_weights, stride: Int) throws(Failure) {
        try checkSize(
            weights.struct_size, bn_weights.self, "weights->struct_size", expected: "sizeof(bn_weights)")
        base = weights.values
        self.stride = stride
        switch weights.masked {
        case BN_MASKED_NORMALIZE: masked = .normalize
        case BN_MASKED_ZERO: masked = .zero
        case BN_MASKED_KEEP: masked = .keep
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
        if number == .float64 {
            try weigh(base.assumingMemoryBound(to: Double.self), rows, length)
        } else {
            try weigh(base.assumingMemoryBound(to: Float.self), rows, length)
        }
    }

    private mutating func weigh<T: Real>(_ values: UnsafePointer<T>, _ rows: Int, _ length: Int) throws(Failure) {
        // Rows without gaps are one.
        let (rows, length) = stride == length ? (1, rows * length) : (rows, length)
        let (least, most) = (T.leastWeight, T.greatestWeight)
        var (faults, positive) = (0, 0)
        total = 0
        for row in 0..<rows {
            let line = values + row * stride
            for index in 0..<length {
                let weight = line[index]
                faults += (weight == 0 || weight >= least) && weight <= most ? 0 : 1
                positive += weight > 0 ? 1 : 0
            }
            total += Weights.sum(line, length)
        }
        isSingle = positive == 1
        if faults == 0 { return }
        for index in 0..<rows * length {
            let weight = values[index / length * stride + index % length]
            if (weight == 0 || weight >= least) && weight <= most { continue }
            throw Failure(
                BN_ERROR_OPTION, "weights->values", .element(index, Double(weight)),
                expected: weight > 0 && weight < .infinity ? "0, or 1e-150 to 1e150" : "a finite number, at least 0")
        }
    }

    /// In four sums, for the latency of an addition.
    private static func sum<T: Real>(_ line: UnsafePointer<T>, _ length: Int) -> Double {
        var (a, b, c, d) = (0.0, 0.0, 0.0, 0.0)
        let whole = length & ~3
        for index in Swift.stride(from: 0, to: whole, by: 4) {
            a += Double(line[index])
            b += Double(line[index + 1])
            c += Double(line[index + 2])
            d += Double(line[index + 3])
        }
        for index in whole..<length { a += Double(line[index]) }
        return (a + b) + (c + d)
    }

    /// Those of some outer indices.
    func slice(_ slice: Slice, _ number: kernel_element) -> Weights {
        var part = self
        part.base = base.map { $0 + slice.start * stride * number.size }
        part.stride = stride * slice.step
        return part
    }

    /// Σw of a block.
    func sum(_ extent: Extent, _ number: kernel_element) -> Double {
        guard let base else { return 0 }
        let (rows, length) =
            stride == extent.inner.count ? (1, extent.outer.count * stride) : (extent.outer.count, extent.inner.count)
        var total = 0.0
        for row in 0..<rows {
            let line = base + ((extent.outer.lowerBound + row) * stride + extent.inner.lowerBound) * number.size
            total +=
                number == .float64
                ? Weights.sum(line.assumingMemoryBound(to: Double.self), length)
                : Weights.sum(line.assumingMemoryBound(to: Float.self), length)
        }
        return total
    }

    /// The first position of a tile's rows that has a weight, from one on; forwards, or backwards from it.
    static func positive(
        _ weights: kernel_operand, _ number: kernel_element, rows: Int, _ length: Int, from start: Int, backwards: Bool
    ) -> (row: Int, column: Int)? {
        number == .float64
            ? positive(Double.self, weights, rows, length, start, backwards)
            : positive(Float.self, weights, rows, length, start, backwards)
    }

    private static func positive<T: Real>(
        _: T.Type, _ weights: kernel_operand, _ rows: Int, _ length: Int, _ start: Int, _ backwards: Bool
    ) -> (row: Int, column: Int)? {
        let values = weights.base.assumingMemoryBound(to: T.self)
        var (row, column) = (start / length, start % length)
        while row >= 0 && row < rows {
            let line = values + row * weights.stride
            while column >= 0 && column < length && !(line[column] > 0) { column += backwards ? -1 : 1 }
            if column >= 0 && column < length { return (row, column) }
            row += backwards ? -1 : 1
            column = backwards ? length - 1 : 0
        }
        return nil
    }

    /// As a tile has them, from a position on.
    func operand(_ outer: Int, _ inner: Int, _ number: kernel_element) -> kernel_operand {
        kernel_operand(
            base: base.map { UnsafeMutableRawPointer(mutating: $0) + (outer * stride + inner) * number.size },
            stride: stride, prefetch: 0, prefetch_last: 0)
    }
}
