// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// A checked shape: extents and strides that cannot overflow any address computed from them.
struct Geometry {
    var outer: Int
    let channels: Int
    let inner: Int
    var xStride: Int
    var yStride: Int
    var dxStride: Int
    let element: kernel_element
    /// Of gamma, beta, running statistics and their gradients.
    var parameter: kernel_element
    var weights: Weights?

    /// Positions in a channel; and what they count for, once they are weighed.
    var count: Int { outer * inner }
    var values: Double { weights?.total ?? Double(count) }
    var isSingle: Bool { weights?.isSingle ?? (count == 1) }
    var elementSize: Int { element.size }
    /// What elements are computed with.
    var number: kernel_element { element.number }
    /// Elements on a cache line.
    var lineElements: Int { 64 / elementSize }
    var bytes: Int { count * channels * elementSize }

    init(_ given: UnsafePointer<bn_shape>?, _ dtype: bn_dtype, _ call: Call) throws(Failure) {
        guard let given else { throw Failure(BN_ERROR_NULL, "shape", .null, expected: "a bn_shape") }
        try call.structure(given, "shape")
        let shape = given.pointee
        try checkSize(shape.struct_size, bn_shape.self, "shape->struct_size", expected: "sizeof(bn_shape)")
        element = try kernel_element(dtype, "dtype")
        parameter = element.number
        channels = try channelCount(shape.channels)
        outer = shape.outer
        inner = shape.inner
        let (slice, tooWide) = shape.channels.multipliedReportingOverflow(by: shape.inner)
        if shape.inner < 0 || tooWide {
            throw Failure(
                BN_ERROR_SHAPE, "shape->inner", .size(shape.inner),
                expected: "channels * inner elements within PTRDIFF_MAX bytes")
        }
        xStride = try resolved(shape.x_stride, "shape->x_stride", outer, slice, element.size)
        yStride = try resolved(shape.y_stride, "shape->y_stride", outer, slice, element.size)
        dxStride = try resolved(shape.dx_stride, "shape->dx_stride", outer, slice, element.size)
        if let given = shape.weights {
            try call.structure(given, "shape->weights")
            weights = try Weights(given.pointee, stride: inner)
        }
    }
}

extension Geometry {
    func with(_ options: Options) -> Geometry {
        var geometry = self
        if let parameter = options.parameter { geometry.parameter = parameter }
        return geometry
    }

    /// Looks at the weights, if there are any, once their memory is known to be sound.
    mutating func weigh() throws(Failure) {
        guard var weights else { return }
        try weights.weigh(rows: outer, inner, number)
        self.weights = weights
    }

    /// That of another tensor.
    func stride(_ given: Int, _ name: StaticString) throws(Failure) -> Int {
        try resolved(given, name, outer, channels * inner, elementSize)
    }
}

/// Elements from one outer index to the next, such that no address overflows.
private func resolved(
    _ stride: Int, _ name: StaticString, _ outer: Int, _ slice: Int, _ size: Int
) throws(Failure) -> Int {
    if stride != 0 && (stride < 0 || stride < slice) {
        throw Failure(BN_ERROR_SHAPE, name, .size(stride, least: slice), expected: "0, or channels * inner or more")
    }
    let elements = max(stride, slice).multipliedReportingOverflow(by: max(outer, 1))
    let bytes = elements.partialValue.multipliedReportingOverflow(by: size)
    if outer < 0 || elements.overflow || bytes.overflow {
        throw Failure(
            BN_ERROR_SHAPE, "shape->outer", .size(outer),
            expected: "outer strides of channels * inner elements or more within PTRDIFF_MAX bytes")
    }
    return stride == 0 || outer <= 1 ? slice : stride
}

/// Few enough for arrays of eight-byte elements, and for sizes computed from them not to overflow.
func channelCount(_ channels: Int) throws(Failure) -> Int {
    if channels == 0 || channels < 0 || channels > Int.max / 256 {
        throw Failure(BN_ERROR_SHAPE, "channels", .size(channels), expected: "at least 1, and fewer than memory holds")
    }
    return channels
}

extension kernel_element {
    var size: Int {
        switch self {
        case KERNEL_FLOAT32: 4
        case KERNEL_FLOAT64: 8
        default: 2
        }
    }

    /// What its values are computed with, and what its parameters are unless the options say otherwise.
    var number: kernel_element { self == KERNEL_FLOAT64 ? KERNEL_FLOAT64 : KERNEL_FLOAT32 }

    /// The largest number that is computed with below a bound; infinity for an infinite one.
    func before(_ bound: Double) -> Double {
        if bound == .infinity { return bound }
        return number == KERNEL_FLOAT64 ? bound.nextDown : Double(Float(bound).nextDown)
    }

    init(_ dtype: bn_dtype, _ name: StaticString) throws(Failure) {
        switch dtype {
        case BN_FLOAT32: self = KERNEL_FLOAT32
        case BN_FLOAT64: self = KERNEL_FLOAT64
        case BN_FLOAT16: self = KERNEL_FLOAT16
        case BN_BFLOAT16: self = KERNEL_BFLOAT16
        default:
            throw Failure(
                BN_ERROR_DTYPE, name, .integer(Int(dtype.rawValue)),
                expected: "BN_FLOAT32 (1), BN_FLOAT64 (2), BN_FLOAT16 (3) or BN_BFLOAT16 (4)")
        }
    }
}
