// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The arguments of a built-in function, as long as they are plain: arrays of NumPy's own type, dense in C's order, aligned;
/// tensors of one shape and one type of elements, and parameters of one dimension. Every other call goes the long way.
struct PlainCall {
    let python: Interpreter
    let element: kernel_element
    let rank: Int
    /// As it was given: below 0 from the end.
    let axis: Int
    let sizes: UnsafePointer<Int>
    var shape = bn_shape()
    /// The type of the parameters, once there is one.
    private var known: kernel_element?
    private(set) var isPlain = true

    /// A call on tensors like x.
    init?(_ python: Interpreter, x: UnsafeRawPointer, axis given: Int?) {
        guard let given, let array = python.array(x), let element = python.element(of: array),
            let sizes = array.pointee.sizes
        else { return nil }
        rank = Int(array.pointee.rank)
        guard -rank..<rank ~= given, rank <= Call.mostAxes else { return nil }
        axis = given
        let axis = given < 0 ? given + rank : given
        self.python = python
        self.element = element
        self.sizes = sizes
        // Few enough for a record of them.
        guard 1...Int(Int32.max) ~= sizes[axis] else { return nil }
        shape.struct_size = MemoryLayout<bn_shape>.size
        shape.outer = 1
        shape.channels = sizes[axis]
        shape.inner = 1
        // An array of no elements may have sizes whose product is beyond an Int, which is as good as another.
        for other in 0..<axis { shape.outer &*= sizes[other] }
        for other in axis + 1..<max(rank, axis + 1) { shape.inner &*= sizes[other] }
        // As bn_shape_from_strides has it: the sums are over the same runs, to the last bit.
        if shape.channels == 1 { (shape.outer, shape.inner) = (1, shape.outer &* shape.inner) }
    }

    /// The memory of a tensor.
    mutating func tensor(_ object: UnsafeRawPointer, isOutput: Bool = false) -> UnsafeMutableRawPointer? {
        guard let array = python.array(object), python.element(of: array) == element,
            Int(array.pointee.rank) == rank, isUsable(array, element, isOutput)
        else { return refuse() }
        for axis in 0..<rank where array.pointee.sizes[axis] != sizes[axis] { return refuse() }
        return array.pointee.data
    }

    /// The memory of an array of one element per channel; nil for None.
    mutating func parameters(_ object: UnsafeRawPointer, isOutput: Bool = false) -> UnsafeMutableRawPointer? {
        if python.isNone(object) { return nil }
        guard let array = python.array(object), let type = python.element(of: array), array.pointee.rank == 1,
            array.pointee.sizes[0] == shape.channels, isUsable(array, type, isOutput),
            type == known ?? type, type == element || type == element.number
        else { return refuse() }
        known = type
        return array.pointee.data
    }

    /// The type of the parameters, which is that of the numbers if there are none.
    var parameter: kernel_element { known ?? element.number }
    /// bn_options' member: 0 stands for the type of the numbers.
    var parameterOption: bn_dtype { parameter == element.number ? bn_dtype(0) : parameter.dtype }

    private mutating func refuse() -> UnsafeMutableRawPointer? {
        isPlain = false
        return nil
    }

    /// An axis of one element may have any stride.
    private func isUsable(_ array: UnsafePointer<python_array>, _ type: kernel_element, _ isOutput: Bool) -> Bool {
        let needed = Int32(python_array_is_aligned | (isOutput ? python_array_is_writeable : 0))
        if array.pointee.flags & needed != needed { return false }
        var stride = type.size
        for axis in (0..<Int(array.pointee.rank)).reversed() {
            let size = array.pointee.sizes[axis]
            if size != 1 && array.pointee.strides[axis] != stride { return false }
            stride &*= size
        }
        return true
    }
}
