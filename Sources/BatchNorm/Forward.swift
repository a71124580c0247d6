// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The tensors and parameters of a forward call, or of a slice of its samples.
struct Forward {
    var geometry: Geometry
    var x = Operand()
    var y = Operand()
    private var z = Operand()
    private var gamma: Elements?
    private var beta: Elements?
    private var savedMean: UnsafeMutablePointer<Double>?
    private var savedInverseStd: UnsafeMutablePointer<Double>?
    private var epilogue: Epilogue?

    init(
        _ geometry: Geometry, gamma: UnsafeRawPointer?, beta: UnsafeRawPointer?,
        savedMean: UnsafeMutablePointer<Double>?, savedInvstd: UnsafeMutablePointer<Double>?
    ) {
        self.geometry = geometry
        self.gamma = geometry.elements(gamma)
        self.beta = geometry.elements(beta)
        self.savedMean = savedMean
        savedInverseStd = savedInvstd
    }

    /// Whether statistics are wanted.
    var saves: Bool { savedMean != nil || savedInverseStd != nil }

    /// All inputs but x and the running statistics.
    @inline(__always)
    mutating func addInputs(_ options: Options, _ groups: Groups, to memory: inout Memory) throws(Failure) {
        try memory.input(geometry.parameters("gamma", gamma?.base, rows: groups.parameterRows))
        try memory.input(geometry.parameters("beta", beta?.base, rows: groups.parameterRows))
        if options.isPlain && geometry.weights == nil { return }
        try addOtherInputs(options, groups, to: &memory)
    }

    @inline(never)
    private mutating func addOtherInputs(
        _ options: Options, _ groups: Groups, to memory: inout Memory
    ) throws(Failure) {
        try geometry.addWeights(to: &memory)
        if options.groups != nil { try groups.check(geometry, &memory) }
        guard let epilogue = options.epilogue else { return }
        try epilogue.check(geometry)
        self.epilogue = epilogue
        if epilogue.z == nil { return }
        z = Operand(
            base: UnsafeMutableRawPointer(mutating: epilogue.z),
            stride: try geometry.stride(epilogue.zStride, "epilogue->z_stride"))
        try memory.input(Region("epilogue->z", epilogue.z, geometry, stride: z.stride))
    }

    /// y and what is saved, `rows` of it.
    @inline(__always)
    func addOutputs(_ rows: Int, x: Region, to memory: inout Memory) throws(Failure) {
        try memory.output(Region("y", y.base, geometry, stride: geometry.yStride), orExactly: x)
        try memory.output(geometry.statistics("saved_mean", savedMean, rows: rows))
        try memory.output(geometry.statistics("saved_invstd", savedInverseStd, rows: rows))
        if let mask = epilogue?.mask {
            if y.base == nil { throw Failure(BN_ERROR_NULL, "y", .null, expected: "a pointer, where there is a mask") }
            try memory.output(geometry.mask(mask))
        }
    }

    /// Of the samples of a slice, with the rows that they have.
    func slice(_ slice: Slice, _ groups: Groups, savedRow: Int) -> Forward {
        var part = self
        part.geometry = geometry.slice(slice)
        part.x = x.slice(slice, geometry.elementSize)
        part.y = y.slice(slice, geometry.elementSize)
        part.z = z.slice(slice, geometry.elementSize)
        let parameters = groups.parameterRow(slice.group) * geometry.channels
        part.gamma = gamma?.from(parameters)
        part.beta = beta?.from(parameters)
        part.savedMean = savedMean.map { $0 + savedRow * geometry.channels }
        part.savedInverseStd = savedInverseStd.map { $0 + savedRow * geometry.channels }
        return part
    }

    /// A sweep that maps x to y.
    @inline(__always)
    func fill(_ sweep: inout Sweep, _ call: Call) {
        sweep.x = x
        sweep.out = y
        if y.base != nil { sweep.map = call.kernels.pointee.normalize }
        if epilogue != nil || geometry.weights != nil { addEpilogue(to: &sweep, call) }
    }

    @inline(never)
    private func addEpilogue(to sweep: inout Sweep, _ call: Call) {
        var kernel = epilogue?.kernel ?? kernel_epilogue()
        kernel.from_output = 0
        kernel.masked = geometry.weights?.masked ?? KERNEL_MASKED_NORMALIZE
        let showsAll = kernel.masked == KERNEL_MASKED_NORMALIZE
        if y.base == nil || (kernel.activation == KERNEL_IDENTITY && showsAll && z.base == nil) { return }
        // Without bounds a clip is no activation.
        if kernel.activation == KERNEL_IDENTITY && showsAll {
            kernel.activation = KERNEL_CLIP
            kernel.low = -.infinity
            kernel.high = .infinity
        }
        sweep.setEpilogue(kernel, call)
        sweep.z = z
        let clipped = kernel.activation == KERNEL_CLIP && showsAll ? call.kernels.pointee.clipped : nil
        sweep.map = clipped ?? call.kernels.pointee.activated
    }

    func settlement(_ statistics: ForwardSettlement.Statistics) -> ForwardSettlement {
        ForwardSettlement(
            statistics: statistics, gamma: gamma, beta: beta, savedMean: savedMean, savedInverseStd: savedInverseStd)
    }

    func writeMask(_ call: Call) throws(Failure) {
        guard let epilogue, let mask = epilogue.mask, geometry.count > 0 else { return }
        call.thread.pointee.setEpilogue(epilogue.passing(geometry.element), geometry.element)
        MaskWriter(geometry, y, mask, call).run()
    }
}

extension Geometry {
    /// Bits of all elements of a dense tensor.
    func mask(_ base: UnsafeMutablePointer<UInt8>) -> Region {
        // ceil(outer · channels · inner / 8), which addresses of one-byte elements cannot overflow.
        Region("epilogue->mask", base, count: (count * channels + 7) / 8, size: 1)
    }

    func addWeights(to memory: inout Memory) throws(Failure) {
        guard let weights else { return }
        if weights.base == nil && count != 0 {
            throw Failure(BN_ERROR_NULL, "weights->values", .null, expected: "a pointer")
        }
        if count.multipliedReportingOverflow(by: number.size).overflow {
            throw Failure(
                BN_ERROR_SHAPE, "shape->outer", .size(outer), expected: "outer * inner weights within PTRDIFF_MAX bytes"
            )
        }
        try memory.input(Region("weights->values", weights.base, count: count, size: number.size))
    }
}
