// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// A checked shape: extents and strides that cannot overflow any address computed from them.
struct Geometry {
    let outer: Int
    let channels: Int
    let inner: Int
    let xStride: Int
    let yStride: Int
    let dxStride: Int
    let element: kernel_element
    /// Of gamma, beta, running statistics and their gradients.
    var parameter: kernel_element

    /// Values in a channel.
    var count: Int { outer * inner }
    var elementSize: Int { element.size }
    /// What elements are computed with.
    var number: kernel_element { element.number }
    /// Elements on a cache line.
    var lineElements: Int { 64 / elementSize }
    var bytes: Int { count * channels * elementSize }

    init(_ shape: UnsafePointer<bn_shape>?, _ dtype: bn_dtype) throws(Failure) {
        guard let shape = shape?.pointee else { throw Failure(BN_ERROR_NULL, "shape", .null, expected: "a bn_shape") }
        guard shape.struct_size == MemoryLayout<bn_shape>.size else {
            throw Failure(
                BN_ERROR_STRUCT_SIZE, "shape->struct_size", .size(shape.struct_size),
                expected: "sizeof(bn_shape), which is 56")
        }
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
        let size = element.size
        func resolved(_ stride: Int, _ name: StaticString) throws(Failure) -> Int {
            if stride != 0 && (stride < 0 || stride < slice) {
                throw Failure(BN_ERROR_SHAPE, name, .size(stride), expected: "0, or at least channels * inner")
            }
            let elements = max(stride, slice).multipliedReportingOverflow(by: max(shape.outer, 1))
            let bytes = elements.partialValue.multipliedReportingOverflow(by: size)
            if shape.outer < 0 || elements.overflow || bytes.overflow {
                throw Failure(
                    BN_ERROR_SHAPE, "shape->outer", .size(shape.outer),
                    expected: "outer strides of channels * inner elements or more within PTRDIFF_MAX bytes")
            }
            return stride == 0 || shape.outer <= 1 ? slice : stride
        }
        xStride = try resolved(shape.x_stride, "shape->x_stride")
        yStride = try resolved(shape.y_stride, "shape->y_stride")
        dxStride = try resolved(shape.dx_stride, "shape->dx_stride")
    }
}

extension Geometry {
    func with(_ options: Options) -> Geometry {
        var geometry = self
        if let parameter = options.parameter { geometry.parameter = parameter }
        return geometry
    }
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
