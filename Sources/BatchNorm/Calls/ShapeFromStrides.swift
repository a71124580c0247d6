// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

extension Call {
    /// The most axes that an array has in any language that is known of: those of NumPy.
    static let mostAxes = 64

    func shapeFromStrides(
        rank: Int, sizes: UnsafePointer<Int64>?, channelAxis: Int, channelAxes: Int, tensors: Int,
        strides: UnsafePointer<Int64>?, samplesOutermost: Bool, shape: UnsafeMutablePointer<bn_shape>?,
        outerStrides: UnsafeMutablePointer<Int>?
    ) throws(Failure) {
        guard 1...Self.mostAxes ~= rank else {
            throw Failure(BN_ERROR_SHAPE, "rank", .size(rank), expected: "1 to 64 axes")
        }
        guard 0..<rank ~= channelAxis else {
            throw Failure(BN_ERROR_SHAPE, "channel_axis", .size(channelAxis), expected: "an axis, from 0 to rank - 1")
        }
        if samplesOutermost && channelAxis == 0 {
            throw Failure(
                BN_ERROR_SHAPE, "channel_axis", .size(0), expected: "at least 1, as axis 0 is that of the samples")
        }
        guard 1...rank - channelAxis ~= channelAxes else {
            throw Failure(
                BN_ERROR_SHAPE, "channel_axes", .size(channelAxes), expected: "1 to rank - channel_axis axes")
        }
        guard 1...ThreadState.mostArguments ~= tensors else {
            throw Failure(BN_ERROR_SHAPE, "tensors", .size(tensors), expected: "1 to 32 tensors")
        }
        let sizes = try need(sizes, "sizes")
        let strides = try need(strides, "strides")
        let shape = try need(shape, "shape")
        let arguments = try Geometry(channels: 1, parameter: .float32).arguments(self)
        try arguments.array("sizes", sizes, count: rank, size: 8)
        try arguments.array("strides", strides, count: tensors * rank, size: 8)
        let word = MemoryLayout<Int>.size
        try arguments.array("shape", shape, count: MemoryLayout<bn_shape>.size / word, size: word, .written)
        try arguments.array("outer_strides", outerStrides, count: tensors, size: word, .written)
        var extents = try Extents(
            rank: rank, sizes: sizes, channelAxes: channelAxis..<channelAxis + channelAxes, first: strides)
        for tensor in 0..<tensors where !extents.isEmpty {
            _ = try extents.outerStride(of: tensor, strides + tensor * rank)
        }
        let (outer, inner) = try extents.outerAndInner(samplesOutermost: samplesOutermost)
        shape.initialize(to: bn_shape())
        shape.pointee.struct_size = MemoryLayout<bn_shape>.size
        shape.pointee.outer = outer
        shape.pointee.channels = extents.channels
        shape.pointee.inner = inner
        for tensor in 0..<tensors {
            let stride = extents.isEmpty ? 0 : try extents.outerStride(of: tensor, strides + tensor * rank)
            if tensor == 0 { shape.pointee.x_stride = stride }
            if let outerStrides { outerStrides[tensor] = stride }
        }
    }
}
