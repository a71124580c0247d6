// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// Bytes in which a forward call keeps what its backward call needs.
///
///     | header | sizes of x | mean | invstd | gamma | beta |
struct Record {
    /// Where the header is, once there are bytes.
    private var memory: UnsafeMutableRawPointer!
    let rank: Int
    let channels: Int
    let element: kernel_element
    let parameter: kernel_element
    private let has: Int

    var axis: Int { Int(memory.assumingMemoryBound(to: python_record.self).pointee.axis) }
    var isFrozen: Bool { has & python_record_is_frozen != 0 }
    var sizes: UnsafeMutablePointer<Int> {
        (memory + MemoryLayout<python_record>.size).assumingMemoryBound(to: Int.self)
    }
    var mean: UnsafeMutablePointer<Double> {
        UnsafeMutableRawPointer(sizes + rank).assumingMemoryBound(to: Double.self)
    }
    var invstd: UnsafeMutablePointer<Double> { mean + channels }
    var gamma: UnsafeMutableRawPointer? { has & python_record_has_gamma == 0 ? nil : parameters }
    var beta: UnsafeMutableRawPointer? {
        if has & python_record_has_beta == 0 { return nil }
        return gamma == nil ? parameters : parameters + parameterBytes
    }
    private var parameters: UnsafeMutableRawPointer { UnsafeMutableRawPointer(invstd + channels) }
    private var parameterBytes: Int { channels * parameter.size }
    private var size: Int {
        let arrays = (has & python_record_has_gamma == 0 ? 0 : 1) + (has & python_record_has_beta == 0 ? 0 : 1)
        return MemoryLayout<python_record>.size + 8 * rank + 16 * channels + arrays * parameterBytes
    }
}

extension Record {
    /// A record in new bytes, which are a Python object; gamma and beta are copied at once, so that the call and its
    /// backward call know the same numbers. nil if there is no memory.
    static func new(
        of call: PlainCall, gamma: UnsafeMutableRawPointer?, beta: UnsafeMutableRawPointer?, isFrozen: Bool,
        isInPlace: Bool
    ) -> (object: UnsafeMutableRawPointer, record: Record)? {
        let has =
            (gamma == nil ? 0 : python_record_has_gamma) | (beta == nil ? 0 : python_record_has_beta)
            | (isFrozen ? python_record_is_frozen : 0) | (isInPlace ? python_record_is_in_place : 0)
        var record = Record(of: call, has)
        guard let object = call.python.newBytes(record.size) else { return nil }
        record.memory = object + MemoryLayout<python_bytes>.size
        record.memory.initializeMemory(
            as: python_record.self,
            to: python_record(
                axis: Int8(call.axis), dtype: UInt8(call.element.dtype.rawValue),
                parameter: UInt8(call.parameter.dtype.rawValue), has: UInt8(has), rank: Int32(call.rank),
                channels: Int64(record.channels)))
        record.sizes.update(from: call.sizes, count: record.rank)
        if let gamma { record.gamma?.copyMemory(from: gamma, byteCount: record.parameterBytes) }
        if let beta { record.beta?.copyMemory(from: beta, byteCount: record.parameterBytes) }
        return (object, record)
    }

    private init(of call: PlainCall, _ has: Int) {
        self.has = has
        rank = call.rank
        channels = call.shape.channels
        element = call.element
        parameter = call.parameter
    }

    /// The record in bytes of that length, if they are one.
    init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= MemoryLayout<python_record>.size else { return nil }
        memory = UnsafeMutableRawPointer(mutating: bytes.baseAddress!)
        let header = memory.assumingMemoryBound(to: python_record.self).pointee
        rank = Int(header.rank)
        channels = Int(header.channels)
        has = Int(header.has)
        guard 1...Call.mostAxes ~= rank, 1...Int(Int32.max) ~= channels,
            let element = kernel_element(bn_dtype(UInt32(header.dtype))),
            let parameter = kernel_element(bn_dtype(UInt32(header.parameter)))
        else { return nil }
        self.element = element
        self.parameter = parameter
        if size != bytes.count { return nil }
    }
}
