// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The input of a handler: one element of the axes that jax.vmap has added to a call of XLA's.
struct XLACall {
    var shape: bn_shape
    /// eps; and the running statistics become those of the batch.
    var options = bn_options()
    let element: kernel_element
    /// The parts of a batch that moments and sums are of; and all of those that are merged.
    let parts: Int
    let allParts: Int
    private let memory: xla_memory

    var dtype: bn_dtype { element.dtype }
    var channels: Int { shape.channels }

    /// The buffer of a letter of the signature; nil if it is not there.
    subscript(place: Int) -> UnsafeMutableRawPointer? {
        let offset = MemoryLayout<Int>.size * place
        return withUnsafeBytes(of: memory) { $0.load(fromByteOffset: offset, as: UnsafeMutableRawPointer?.self) }
    }

    /// Zeros in an array of channels, which the statistics of the batch are then moved into.
    func clear(_ place: Int) { memset(self[place]!, 0, channels * element.number.size) }

    /// A row of the doubles in a buffer.
    func doubles(_ place: Int, row: Int = 0) -> UnsafeMutablePointer<Double> {
        self[place]!.assumingMemoryBound(to: Double.self) + row * channels
    }
}

extension XLACall {
    /// Runs the body once for every element of the axes of jax.vmap; the result is nil, or an error of XLA's.
    @_optimize(size) static func serve(
        _ call: UnsafePointer<xla_call>?, _ signature: StaticString, _ body: (inout XLACall) -> bn_status
    ) -> UnsafeMutableRawPointer? {
        let (found, answer) = buffers(call!, signature)
        guard let buffers = found else { return answer }
        for lane in 0..<buffers.lanes {
            var one = XLACall(buffers, lane: lane)
            let status = body(&one)
            if status != BN_OK { return error(call!, code(status), exportLastError()!) }
        }
        return nil
    }

    /// The buffers of a call that is to be served, or the answer to any other.
    @inline(never)
    @_optimize(size) private static func buffers(
        _ call: UnsafePointer<xla_call>, _ signature: StaticString
    ) -> (XLABuffers?, UnsafeMutableRawPointer?) {
        if answersMetadata(call) || call.pointee.stage != Int32(xla_executes) { return (nil, nil) }
        let version = call.pointee.api.pointee.version
        guard version.major == xla_major, version.minor >= xla_minor else {
            let message: StaticString =
                "libbatchnorm: XLA's foreign functions are of a version that it cannot serve"
            return (nil, error(call, Int32(xla_unimplemented), characters(message)))
        }
        if let buffers = XLABuffers(call, signature) { return (buffers, nil) }
        let message: StaticString = """
            libbatchnorm: operands, results or attributes are not those of this function; expected a call by \
            batchnorm.jax
            """
        return (nil, error(call, Int32(xla_invalid_argument), characters(message)))
    }

    @inline(never)
    private init(_ buffers: XLABuffers, lane: Int) {
        element = buffers.element
        parts = buffers.parts
        allParts = buffers.allParts
        memory = buffers.memory(lane: lane)
        shape = buffers.shape
        options.struct_size = MemoryLayout<bn_options>.size
        options.eps = buffers.eps
        options.momentum = 1
        options.biased_running_var = 1
    }

    /// True if XLA asks which version the handler is made for, as it does when the handler is registered.
    @_optimize(size) private static func answersMetadata(_ call: UnsafePointer<xla_call>) -> Bool {
        guard let first = call.pointee.extensions, first.pointee.type == Int32(xla_extension_metadata) else {
            return false
        }
        let asked = UnsafeMutableRawPointer(first).assumingMemoryBound(to: xla_metadata_extension.self)
        asked.pointee.metadata.pointee.version.major = Int32(xla_major)
        asked.pointee.metadata.pointee.version.minor = Int32(xla_minor)
        asked.pointee.metadata.pointee.traits = 0
        return true
    }

    private static func code(_ status: bn_status) -> Int32 {
        switch status {
        case BN_ERROR_MEMORY: Int32(xla_resource_exhausted)
        case BN_ERROR_ENVIRONMENT, BN_ERROR_NESTED: Int32(xla_failed_precondition)
        default: Int32(xla_invalid_argument)
        }
    }

    /// XLA copies the message.
    @inline(never)
    private static func error(
        _ call: UnsafePointer<xla_call>, _ code: Int32, _ message: UnsafePointer<CChar>
    ) -> UnsafeMutableRawPointer? {
        var error = xla_error(
            struct_size: MemoryLayout<xla_error>.size, extensions: nil, message: message, code: code)
        return call.pointee.api.pointee.create_error(&error)
    }
}
