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
    /// The type of gamma, beta, running statistics and their gradients.
    var parameter: kernel_element
    var weights: Weights?

    /// Positions in a channel; and what they count for, once they are weighed.
    var count: Int { outer * inner }
    var values: Double { weights?.total ?? Double(count) }
    var isSingle: Bool { weights?.isSingle ?? (count == 1) }
    var elementSize: Int { element.size }
    /// The type that elements are computed with.
    var number: kernel_element { element.number }
    /// Elements on a cache line.
    var lineElements: Int { 64 / elementSize }
    var bytes: Int { count * channels * elementSize }
    /// Bits of all elements of a dense tensor: ceil(count · channels / 8), which addresses of one-byte elements cannot overflow.
    var maskBytes: Int { (count * channels + 7) / 8 }

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
    /// The extents of arrays of channels, for a function without tensors.
    init(channels count: Int, parameter: kernel_element) throws(Failure) {
        channels = try channelCount(count)
        outer = 1
        inner = 1
        xStride = channels
        yStride = channels
        dxStride = channels
        element = parameter
        self.parameter = parameter
    }

    /// Looks at the weights, if there are any, once their memory is known to be sound.
    mutating func weigh() throws(Failure) {
        guard var weights else { return }
        try weights.weigh(rows: outer, inner, number)
        self.weights = weights
    }

    /// For a function whose formulas have no weights.
    func refuseWeights() throws(Failure) {
        if weights == nil { return }
        throw Failure(BN_ERROR_OPTION, "shape->weights", .set, expected: "NULL, as this function does not take it")
    }

    /// The stride of another tensor.
    func stride(_ given: Int, _ name: StaticString) throws(Failure) -> Int {
        try resolved(given, name, outer, channels * inner, elementSize)
    }

    /// The extents of some of the outer indices.
    func slice(_ slice: Slice) -> Geometry {
        var part = self
        part.outer = slice.count
        part.xStride = xStride * slice.step
        part.yStride = yStride * slice.step
        part.weights = weights?.slice(slice, number)
        // Every weight has been looked at, so that there is nothing left to be thrown.
        try? part.weigh()
        return part
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
