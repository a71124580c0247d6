// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// CPython, as the package that loaded the library describes it.
struct Interpreter {
    private let told: UnsafePointer<python_interpreter>

    init(_ description: UnsafeRawPointer) {
        let memory = description.assumingMemoryBound(to: python_structure.self).pointee.memory!
        told = memory.assumingMemoryBound(to: python_interpreter.self)
    }

    /// A result that the caller owns.
    var none: UnsafeMutableRawPointer { owned(told.pointee.none) }
    var yes: UnsafeMutableRawPointer { owned(told.pointee.yes) }

    private func owned(_ object: UnsafeRawPointer!) -> UnsafeMutableRawPointer {
        let object = UnsafeMutableRawPointer(mutating: object)!
        told.pointee.retain(object)
        return object
    }

    /// Bytes yet to be written; nil if there is no memory.
    func newBytes(_ size: Int) -> UnsafeMutableRawPointer? {
        let bytes = told.pointee.new_bytes(nil, size)
        if bytes == nil { told.pointee.clear_error() }
        return bytes
    }

    func release(_ object: UnsafeMutableRawPointer) { told.pointee.release(object) }

    /// Other threads of the interpreter run while the body does.
    @inline(__always)
    func unlocked(_ body: () -> bn_status) -> bn_status {
        let thread = told.pointee.save_thread()
        let status = body()
        told.pointee.restore_thread(thread)
        return status
    }
}

/// Arguments as values; nil if they are of another type than exactly the one that is asked for.
extension Interpreter {
    func isNone(_ object: UnsafeRawPointer) -> Bool { object == told.pointee.none }

    func float(_ object: UnsafeRawPointer) -> Double? {
        type(of: object) == told.pointee.real
            ? object.assumingMemoryBound(to: python_float.self).pointee.value : nil
    }

    func bool(_ object: UnsafeRawPointer) -> Bool? {
        object == told.pointee.yes ? true : object == told.pointee.no ? false : nil
    }

    func int(_ object: UnsafeRawPointer) -> Int? {
        guard type(of: object) == told.pointee.integer else { return nil }
        var overflow: Int32 = 0
        let value = told.pointee.as_long(object, &overflow)
        return overflow == 0 ? value : nil
    }

    func bytes(_ object: UnsafeRawPointer) -> UnsafeRawBufferPointer? {
        if type(of: object) != told.pointee.text { return nil }
        let size = object.assumingMemoryBound(to: python_bytes.self).pointee.size
        return UnsafeRawBufferPointer(start: object + MemoryLayout<python_bytes>.size, count: size)
    }

    func array(_ object: UnsafeRawPointer) -> PlainArray? {
        let type = type(of: object)
        if type == told.pointee.array {
            let array = object.assumingMemoryBound(to: python_array.self)
            return PlainArray(array, element(of: array))
        }
        let tensors = told.pointee.tensors
        guard let open = told.pointee.open_tensor, type == tensors.0 || type == tensors.1 else { return nil }
        var tensor = python_tensor()
        if open(object, &tensor) != 0 {
            told.pointee.clear_error()
            return nil
        }
        return PlainArray(tensor)
    }

    /// The type of an array's elements, whose dtype object is the only one of its kind.
    private func element(of array: UnsafePointer<python_array>) -> kernel_element? {
        guard let dtype = array.pointee.dtype else { return nil }
        let known = told.pointee.dtypes
        if dtype == known.1 { return .float32 }
        if dtype == known.2 { return .float64 }
        if dtype == known.3 { return .float16 }
        return dtype == known.4 ? .bfloat16 : nil
    }

    private func type(of object: UnsafeRawPointer) -> UnsafeRawPointer? {
        object.assumingMemoryBound(to: python_object.self).pointee.type
    }
}
