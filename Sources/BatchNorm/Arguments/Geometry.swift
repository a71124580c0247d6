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
    /// The type that elements are computed with.
    let number: kernel_element
    /// Bytes of an element.
    let elementSize: Int
    /// The type of gamma, beta, running statistics and their gradients, and bytes of one.
    private(set) var parameter: kernel_element
    private var parameterSize: Int
    var weights: Weights?

    /// Positions in a channel; and what they count for, once they are weighed.
    var count: Int { outer * inner }
    var values: Double { weights?.total ?? Double(count) }
    var isSingle: Bool { weights?.isSingle ?? (count == 1) }
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
        number = element.number
        elementSize = element.size
        parameter = number
        parameterSize = number.size
        channels = try channelCount(shape.channels)
        outer = shape.outer
        inner = shape.inner
        let (slice, tooWide) = shape.channels.multipliedReportingOverflow(by: shape.inner)
        if shape.inner < 0 || tooWide {
            throw Failure(
                BN_ERROR_SHAPE, "shape->inner", .size(shape.inner),
                expected: "channels * inner elements within PTRDIFF_MAX bytes")
        }
        xStride = try resolved(shape.x_stride, "shape->x_stride", outer, slice, elementSize)
        yStride = try resolved(shape.y_stride, "shape->y_stride", outer, slice, elementSize)
        dxStride = try resolved(shape.dx_stride, "shape->dx_stride", outer, slice, elementSize)
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
        number = parameter.number
        elementSize = parameter.size
        self.parameter = parameter
        parameterSize = elementSize
    }

    /// The same with parameters of another type.
    func with(parameter: kernel_element) -> Geometry {
        var geometry = self
        geometry.parameter = parameter
        geometry.parameterSize = parameter.size
        return geometry
    }

    /// The list of a call's arguments, which are of these extents and types.
    func arguments(_ call: Call) -> ArgumentList {
        ArgumentList(
            call: call, outer: outer, slice: channels * inner, channels: channels, elementSize: elementSize,
            parameter: parameter, parameterSize: parameterSize)
    }

    /// Enters the weights of positions, if there are any.
    func enterWeights(_ arguments: ArgumentList) throws(Failure) {
        guard let weights else { return }
        if count != 0 { _ = try need(weights.base, "weights->values") }
        if count.multipliedReportingOverflow(by: number.size).overflow {
            throw Failure(
                BN_ERROR_SHAPE, "shape->outer", .size(outer),
                expected: "outer * inner weights within PTRDIFF_MAX bytes")
        }
        try arguments.array("weights->values", weights.base, count: count, size: number.size)
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

/// Some outer indices that are handled as one tensor: `count` of them, `step` apart; and the group that they are of.
struct Slice {
    let start: Int
    let count: Int
    let step: Int
    let group: Int
}

/// A range of outer indices, and one of positions within each of them.
typealias Extent = (outer: Range<Int>, inner: Range<Int>)

extension Operand {
    func slice(_ slice: Slice, _ elementSize: Int) -> Operand {
        Operand(base: base.map { $0 + slice.start * stride * elementSize }, stride: stride * slice.step)
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
