// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The arguments of a built-in function, as long as they are plain: NumPy's arrays, or beside an x of PyTorch's its tensors
/// as well, dense in C's order; tensors of one shape and one type of elements, parameters of one dimension. Every other call
/// goes the long way.
struct PlainCall {
    let python: Interpreter
    let element: kernel_element
    let rank: Int
    /// As it was given: below 0 from the end.
    let axis: Int
    let sizes: UnsafePointer<Int>
    private let isOfTensors: Bool
    var shape = bn_shape()
    /// The type of the parameters, once there is one.
    private var known: kernel_element?
    private(set) var isPlain = true

    /// A call on tensors like x.
    init?(_ python: Interpreter, x: UnsafeRawPointer, axis given: Int?) {
        guard let given, let array = python.array(x) else { return nil }
        rank = array.rank
        guard -rank..<rank ~= given, rank <= Call.mostAxes else { return nil }
        axis = given
        let axis = given < 0 ? given + rank : given
        self.python = python
        element = array.element
        sizes = array.sizes
        isOfTensors = array.isTensor
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
        guard let array = python.array(object), array.element == element, array.rank == rank,
            isUsable(array, isOutput)
        else { return refuse() }
        for axis in 0..<rank where array.sizes[axis] != sizes[axis] { return refuse() }
        return array.data
    }

    /// The memory of an array of one element per channel; nil for None.
    mutating func parameters(_ object: UnsafeRawPointer, isOutput: Bool = false) -> UnsafeMutableRawPointer? {
        if python.isNone(object) { return nil }
        guard let array = python.array(object), array.rank == 1, array.sizes[0] == shape.channels,
            isUsable(array, isOutput), array.element == known ?? array.element,
            array.element == element || array.element == element.number
        else { return refuse() }
        known = array.element
        return array.data
    }

    /// The type of the parameters, which is that of the numbers if there are none.
    var parameter: kernel_element { known ?? element.number }
    /// bn_options' member: 0 stands for the type of the numbers.
    var parameterOption: bn_dtype { parameter == element.number ? bn_dtype(0) : parameter.dtype }

    private mutating func refuse() -> UnsafeMutableRawPointer? {
        isPlain = false
        return nil
    }

    /// Addresses are checked by the function that is called.
    private func isUsable(_ array: PlainArray, _ isOutput: Bool) -> Bool {
        (isOfTensors || !array.isTensor) && (array.isWriteable || !isOutput) && array.isDense
    }
}
