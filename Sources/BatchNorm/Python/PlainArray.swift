// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The description of an array that a call can work with: one of NumPy's own type, or a tensor of PyTorch's.
struct PlainArray {
    let data: UnsafeMutableRawPointer?
    let element: kernel_element
    let rank: Int
    /// They are the array's own, and good until other threads run.
    let sizes: UnsafePointer<Int>
    private let strides: UnsafePointer<Int>?
    /// Bytes of a step of a stride.
    private let unit: Int
    let isWriteable: Bool
    let isTensor: Bool

    init?(_ array: UnsafePointer<python_array>, _ element: kernel_element?) {
        guard let element, let sizes = array.pointee.sizes else { return nil }
        self.element = element
        self.sizes = sizes
        data = array.pointee.data
        rank = Int(array.pointee.rank)
        strides = array.pointee.strides
        unit = 1
        isWriteable = array.pointee.flags & Int32(python_array_is_writeable) != 0
        isTensor = false
    }

    init?(_ tensor: python_tensor) {
        guard tensor.device == 1, tensor.lanes == 1, let sizes = tensor.sizes else { return nil }
        switch (tensor.code, tensor.bits) {
        case (2, 32): element = .float32
        case (2, 64): element = .float64
        case (2, 16): element = .float16
        case (4, 16): element = .bfloat16
        default: return nil
        }
        data = tensor.data.map { $0 + Int(tensor.offset) }
        rank = Int(tensor.rank)
        self.sizes = sizes
        // The memory of a tensor with elements may have been freed, and is not to be taken for an argument that is absent.
        if data == nil && !(0..<rank).contains(where: { sizes[$0] == 0 }) { return nil }
        strides = tensor.strides
        unit = element.size
        isWriteable = true
        isTensor = true
    }

    /// True in C's order without gaps. An axis of one element may have any stride in an array, but not in a tensor: that of
    /// the imaginary part of a conjugate, which is lazily negated, tells it from others.
    var isDense: Bool {
        guard let strides else { return true }
        var expected = element.size
        for axis in (0..<rank).reversed() {
            if (sizes[axis] != 1 || isTensor) && strides[axis] &* unit != expected { return false }
            expected &*= sizes[axis]
        }
        return true
    }
}
