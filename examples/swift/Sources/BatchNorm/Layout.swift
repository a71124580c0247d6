// SPDX-License-Identifier: Apache-2.0
import CBatchNorm

/// The layout of the tensors of a call: `Shape` or `Strides`.
public protocol Layout: Sendable {
    var form: Form { get }
}

public enum Form: Hashable, Sendable {
    case dense(Shape)
    case strided(Strides)
}

/// Outer x channels x inner, dense, the inner index running fastest: NCHW is (N, C, H * W), NHWC is (N * H * W, C, 1).
public struct Shape: Hashable, Layout {
    public var outer: Int
    public var channels: Int
    public var inner: Int

    public init(outer: Int, channels: Int, inner: Int) {
        self.outer = outer
        self.channels = channels
        self.inner = inner
    }

    public var form: Form { .dense(self) }
}

/// The length of each axis, and the distance of neighbours along it in elements, for each tensor of a layer. Arrays
/// begin with the first element, and may be longer than what the strides reach. The library refuses what has to be
/// copied.
public struct Strides: Hashable, Layout {
    public var sizes: [Int]
    /// The axis of the channels.
    public var axis = 1
    public var x: [Int]
    /// Those of x, where they are nil.
    public var y, residual, dy, dx, dz: [Int]?

    public init(sizes: [Int], x: [Int], axis: Int = 1) {
        self.sizes = sizes
        self.x = x
        self.axis = axis
    }

    public var form: Form { .strided(self) }
}

/// The extents of a call, and the outer strides of x, y or dy, dx, the residual and dz.
struct Extents {
    let shape: Shape
    let strides: [Int]
    let isStrided: Bool

    init(_ form: Form, isBackward: Bool, isGrouped: Bool) throws(BatchNormError) {
        let given: Strides
        switch form {
        case .dense(let dense):
            (shape, strides, isStrided) = (dense, [0, 0, 0, 0, 0], false)
            return
        case .strided(let strided):
            given = strided
        }
        let rows = [given.x, isBackward ? given.dy : given.y, given.dx, given.residual, given.dz].map { $0 ?? given.x }
        let sizes = given.sizes.map(Int64.init)
        for row in rows where row.count != sizes.count {
            throw .length(argument: "strides", actual: row.count, expected: sizes.count)
        }
        guard sizes.indices ~= given.axis else {
            throw .length(argument: "axis", actual: given.axis, expected: max(0, sizes.count - 1))
        }
        let all = rows.joined().map(Int64.init)
        var (found, outer) = (bn_shape(), [Int](repeating: 0, count: rows.count))
        try call {
            bn_shape_from_strides(
                sizes.count, sizes, given.axis, 1, rows.count, all, isGrouped ? 1 : 0, &found, &outer)
        }
        shape = Shape(outer: found.outer, channels: found.channels, inner: found.inner)
        (strides, isStrided) = (outer, true)
    }

    /// The elements of the tensor at this place, from the first to the last; -1 where no array has so many.
    func span(_ place: Int) -> Int {
        let (slice, overflow) = shape.channels.multipliedReportingOverflow(by: shape.inner)
        guard !overflow, min(shape.outer, shape.channels, shape.inner) >= 0 else { return -1 }
        guard shape.outer > 0, slice > 0 else { return 0 }
        let stride = strides[place] == 0 ? slice : strides[place]
        let (before, further) = (shape.outer - 1).multipliedReportingOverflow(by: stride)
        let (span, last) = before.addingReportingOverflow(slice)
        return further || last ? -1 : span
    }

    /// nil is an argument that is not there. One with strides may be longer than what they reach.
    func check(_ argument: String, _ count: Int?, at place: Int) throws(BatchNormError) {
        guard let count else { return }
        let expected = span(place)
        guard isStrided && expected >= 0 ? count >= expected : count == expected else {
            throw .length(argument: argument, actual: count, expected: expected)
        }
    }

    func checkRow(_ argument: String, _ count: Int?, of groups: Groups?, _ kind: PerGroup) throws(BatchNormError) {
        guard let count, case let expected = rows(of: groups, kind), count != expected else { return }
        throw .length(argument: argument, actual: count, expected: expected)
    }

    /// The elements of an array that has a row for each group if it is of this kind.
    func rows(of groups: Groups?, _ kind: PerGroup) -> Int {
        guard let groups, groups.perGroup.contains(kind) else { return shape.channels }
        let (rows, overflow) = shape.channels.multipliedReportingOverflow(by: groups.count)
        return overflow ? -1 : rows
    }
}
