// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The buffers of a call, compared with the signature of its handler, and what they have in common.
struct XLABuffers {
    private let call: UnsafePointer<xla_call>
    private let signature: XLASignature
    private let rank: Int
    private let axis: Int
    let eps: Double
    private let tensor: UnsafePointer<xla_buffer>
    let element: kernel_element
    /// The number of axes that jax.vmap has added, and their lengths; their elements are the lanes of the call.
    private let leading: Int
    private let lengths: UnsafePointer<Int64>
    private(set) var lanes = 1
    private(set) var parts = 1
    private(set) var allParts = 1

    /// nil if a handler of this signature cannot be called so.
    @_optimize(size) init?(_ call: UnsafePointer<xla_call>, _ letters: StaticString) {
        let attributes = XLAAttributes(attributes: call.pointee.attributes)
        guard let rank = attributes["rank"], let axis = attributes["axis"], let given = attributes["given"],
            let eps = attributes["eps"], 1...Call.mostAxes ~= rank, 0..<rank ~= axis
        else { return nil }
        self.call = call
        (self.rank, self.axis) = (rank, axis)
        self.eps = Double(bitPattern: UInt64(bitPattern: Int64(eps)))
        signature = XLASignature(letters: characters(letters), given: given)
        guard let tensor = signature.first("t", of: call), let element = XLABuffers.element(tensor.pointee.dtype),
            call.pointee.results.count > 0, call.pointee.results.kinds[0] == Int32(xla_is_buffer),
            let result = call.pointee.results.buffers[0]
        else { return nil }
        self.tensor = tensor
        self.element = element
        leading = Int(tensor.pointee.rank) - rank
        lengths = result.pointee.sizes
        guard 0...Call.mostAxes ~= leading, Int(result.pointee.rank) >= leading else { return nil }
        for axis in 0..<leading {
            let (product, overflows) = lanes.multipliedReportingOverflow(by: Int(lengths[axis]))
            if lengths[axis] < 0 || overflows { return nil }
            lanes = product
        }
        for axis in 0..<rank where size(axis) < 0 { return nil }
        if let some = signature.first("m", of: call) ?? signature.first("u", of: call) { parts = rows(of: some) }
        if let all = signature.first("M", of: call) ?? signature.first("U", of: call) { allParts = rows(of: all) }
        // Parts are slices along the first axis.
        guard parts == 1 || (axis > 0 && parts > 0 && size(0) % parts == 0) else { return nil }
        guard signature.all(of: call, isAsExpected) else { return nil }
    }

    /// The extents of x without the axes of jax.vmap.
    var shape: bn_shape {
        var shape = bn_shape()
        shape.struct_size = MemoryLayout<bn_shape>.size
        (shape.outer, shape.channels, shape.inner) = (1, size(axis), 1)
        for other in 0..<axis { shape.outer &*= size(other) }
        for other in axis + 1..<max(rank, axis + 1) { shape.inner &*= size(other) }
        // As bn_shape_from_strides has it: the sums are over the same runs, to the last bit.
        if shape.channels == 1 { (shape.outer, shape.inner) = (1, shape.outer &* shape.inner) }
        return shape
    }

    /// Where the buffers have the numbers of one lane.
    @inline(never)
    @_optimize(size) func memory(lane: Int) -> xla_memory {
        var memory = xla_memory()
        _ = signature.all(of: call) { entry in
            var (rest, index, step) = (lane, 0, 1)
            for axis in (0..<leading).reversed() {
                let length = Int(entry.buffer.pointee.sizes[axis])
                if length > 1 { index += rest % length * step }
                rest /= max(Int(lengths[axis]), 1)
                step *= length
            }
            // XLA may have no address for a buffer without elements.
            let address = entry.buffer.pointee.data ?? UnsafeMutableRawPointer(bitPattern: 64)!
            let place = MemoryLayout<Int>.size * entry.place
            withUnsafeMutableBytes(of: &memory) {
                $0.storeBytes(of: address + index * bytes(of: entry), toByteOffset: place, as: UnsafeRawPointer?.self)
            }
            return true
        }
        return memory
    }

    private func size(_ axis: Int) -> Int { Int(tensor.pointee.sizes[leading + axis]) }

    /// The second of the axes of moments and sums.
    private func rows(of buffer: UnsafePointer<xla_buffer>) -> Int {
        Int(buffer.pointee.rank) > leading + 1 ? Int(buffer.pointee.sizes[leading + 1]) : 0
    }

    /// The axes of a buffer behind those of jax.vmap.
    @_optimize(size) private func extents(_ kind: UInt8) -> (rank: Int, size: (Int) -> Int) {
        let channels = size(axis)
        switch kind {
        case UInt8(ascii: "t"): return (rank, { size($0) })
        case UInt8(ascii: "c"): return (1, { _ in channels })
        case UInt8(ascii: "s"): return (3, { $0 == 1 ? channels : 2 })
        case UInt8(ascii: "k"): return (3, { $0 == 0 ? 3 : $0 == 1 ? channels : 2 })
        default:
            let isMoments = kind == UInt8(ascii: "m") || kind == UInt8(ascii: "M")
            let rows = kind == UInt8(ascii: "M") || kind == UInt8(ascii: "U") ? allParts : parts
            return (4, { $0 == 0 ? (isMoments ? 3 : 2) : $0 == 1 ? rows : $0 == 2 ? channels : 2 })
        }
    }

    @_optimize(size) private func isAsExpected(_ entry: XLASignature.Entry) -> Bool {
        let buffer = entry.buffer.pointee
        let (rank, size) = extents(entry.kind)
        guard buffer.rank == leading + rank, buffer.dtype == dtype(entry.kind) else { return false }
        for axis in 0..<leading where buffer.sizes[axis] != lengths[axis] {
            if entry.isResult || buffer.sizes[axis] != 1 { return false }
        }
        for axis in 0..<rank where Int(buffer.sizes[leading + axis]) != size(axis) { return false }
        return buffer.data != nil || lanes == 0 || bytes(of: entry) == 0
    }

    @_optimize(size) private func bytes(of entry: XLASignature.Entry) -> Int {
        let (rank, size) = extents(entry.kind)
        var bytes =
            entry.kind == UInt8(ascii: "t") ? element.size : entry.kind == UInt8(ascii: "c") ? element.number.size : 4
        for axis in 0..<rank { bytes *= size(axis) }
        return bytes
    }

    private func dtype(_ kind: UInt8) -> Int32 {
        switch kind {
        case UInt8(ascii: "t"): tensor.pointee.dtype
        case UInt8(ascii: "c"): Int32(element == .float64 ? xla_f64 : xla_f32)
        default: Int32(xla_u32)
        }
    }

    private static func element(_ dtype: Int32) -> kernel_element? {
        switch dtype {
        case Int32(xla_f32): .float32
        case Int32(xla_f64): .float64
        case Int32(xla_f16): .float16
        case Int32(xla_bf16): .bfloat16
        default: nil
        }
    }
}
