// SPDX-License-Identifier: Apache-2.0
import CBatchNorm

/// outer x channels x inner, of tensors that have one shape and may have different strides.
///
///     axes, outermost in memory first     | outer axes | a gap | channel axes | inner axes |
///
/// The channel axes lie side by side and in sequence. Only where they begin may there be a gap, by which the slices of a
/// larger tensor lie further apart. With a single channel there are no channel axes to find, and that gap may be anywhere.
struct Extents {
    private let rank: Int
    private let sizes: UnsafePointer<Int64>
    private let channelAxes: Range<Int>
    /// The strides of the first tensor, with whose order those of the others are compared.
    private let first: UnsafePointer<Int64>
    /// The axes of an outer slice: known at once if there are channel axes, else from the first gap.
    private var axesWithin: Int?
    let channels: Int
    let isEmpty: Bool

    init(
        rank: Int, sizes: UnsafePointer<Int64>, channelAxes: Range<Int>, first: UnsafePointer<Int64>
    ) throws(Failure) {
        self.rank = rank
        self.sizes = sizes
        self.channelAxes = channelAxes
        self.first = first
        var elements = 1
        var channels = 1
        var isEmpty = false
        for axis in 0..<rank {
            if sizes[axis] < 0 {
                throw Failure(BN_ERROR_SHAPE, "sizes", .entry(axis, Int(sizes[axis])), expected: "at least 0")
            }
            isEmpty = isEmpty || sizes[axis] == 0
            elements = try product(elements, max(sizes[axis], 1))
            if channelAxes.contains(axis) { channels *= Int(sizes[axis]) }
        }
        self.channels = channels
        self.isEmpty = isEmpty
        if !isEmpty { axesWithin = try findChannels() }
    }

    /// The number of inner axes and channel axes; nil if all channel axes are of one element.
    private func findChannels() throws(Failure) -> Int? {
        var order = MemoryOrder(rank: rank, sizes, first)
        var next = channelAxes.last { sizes[$0] > 1 }
        guard var expected = next else { return nil }
        var count = 0
        var isWithin = false
        while let axis = order.next() {
            count += 1
            if axis == expected {
                isWithin = true
                next = channelAxes.last { $0 < expected && sizes[$0] > 1 }
                guard let before = next else { return count }
                expected = before
            } else if isWithin || channelAxes.contains(axis) {
                throw Failure(
                    BN_ERROR_SHAPE, "axis", .axis(axis, besides: expected),
                    expected: "channel axes that lie in memory side by side and in sequence: copy the tensor")
            }
        }
        return count
    }

    /// The outer stride of a tensor, 0 if it is dense. Its order in memory has to be that of the first one.
    mutating func outerStride(of tensor: Int, _ strides: UnsafePointer<Int64>) throws(Failure) -> Int {
        var order = MemoryOrder(rank: rank, sizes, strides)
        var firsts = MemoryOrder(rank: rank, sizes, first)
        var dense = 1
        var count = 0
        var outerStride = 0
        while let axis = order.next() {
            let stride = Int(truncatingIfNeeded: strides[axis])
            let place = tensor * rank + axis
            if stride <= 0 {
                throw Failure(
                    BN_ERROR_SHAPE, "strides", .entry(place, stride),
                    expected: "above 0: a tensor that runs backwards, or repeats elements, has to be copied")
            }
            if firsts.next() != axis {
                throw Failure(
                    BN_ERROR_SHAPE, "strides", .entry(place, stride),
                    expected: "the order in memory of the first tensor: copy one of the two")
            }
            if stride != dense {
                if stride < dense {
                    throw Failure(
                        BN_ERROR_SHAPE, "strides", .entry(place, stride, least: dense),
                        expected: "elements that do not overlap")
                }
                axesWithin = axesWithin ?? count
                if axesWithin != count {
                    throw Failure(
                        BN_ERROR_SHAPE, "strides", .entry(place, stride, least: dense),
                        expected: "no gap but where the channel axes begin: the dense stride")
                }
                outerStride = stride
            }
            dense = try product(stride, sizes[axis])
            count += 1
        }
        return outerStride
    }

    /// outer and inner, when all tensors are known.
    func outerAndInner(samplesOutermost: Bool) throws(Failure) -> (outer: Int, inner: Int) {
        if isEmpty { return (0, 1) }
        var order = MemoryOrder(rank: rank, sizes, first)
        var within = axesWithin ?? Int.max
        var outer = 1
        var inner = 1
        var last = 0
        while let axis = order.next() {
            within -= 1
            if within < 0 || (axesWithin == nil && samplesOutermost && axis == 0) {
                outer *= Int(sizes[axis])
            } else if !channelAxes.contains(axis) {
                inner *= Int(sizes[axis])
            }
            last = axis
        }
        if samplesOutermost && sizes[0] > 1 && last != 0 {
            throw Failure(
                BN_ERROR_SHAPE, "axis", .axis(last, besides: 0),
                expected: "samples, which are axis 0, outermost in memory: copy the tensor")
        }
        return (outer, inner)
    }
}

private func product(_ a: Int, _ b: Int64) throws(Failure) -> Int {
    let (product, isTooMany) = a.multipliedReportingOverflow(by: Int(truncatingIfNeeded: b))
    if isTooMany || Int64(Int(truncatingIfNeeded: b)) != b {
        throw Failure(BN_ERROR_SHAPE, "sizes", .set, expected: "at most PTRDIFF_MAX elements")
    }
    return product
}
