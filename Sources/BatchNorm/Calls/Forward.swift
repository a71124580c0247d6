// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The tensors and parameters of a forward call, or of a slice of its samples.
struct Forward {
    var geometry: Geometry
    private var x: Operand
    private var y = Operand()
    private var z = Operand()
    private var gamma: Elements?
    private var beta: Elements?
    private var savedMean: UnsafeMutablePointer<Double>?
    private var savedInverseStd: UnsafeMutablePointer<Double>?
    private var epilogue: Epilogue?
    /// Where x is in the list of arguments, which y may be.
    private let placeOfX: Int

    /// True if statistics are wanted.
    var saves: Bool { savedMean != nil || savedInverseStd != nil }

    /// Enters all inputs but the statistics.
    @inline(__always)
    init(
        _ geometry: Geometry, x: UnsafeRawPointer?, isNeeded: Bool = true, gamma: UnsafeRawPointer?,
        beta: UnsafeRawPointer?, _ options: Options, _ arguments: ArgumentList
    ) throws(Failure) {
        self.geometry = geometry
        self.x = try arguments.tensor("x", x, stride: geometry.xStride, isNeeded: isNeeded)
        placeOfX = arguments.latest
        (self.gamma, self.beta) = try arguments.parameters(("gamma", "beta"), gamma, beta)
        if options.isPlain && geometry.weights == nil { return }
        try geometry.enterWeights(arguments)
        try options.groups?.enter(arguments)
        if let epilogue = options.epilogue { try enter(epilogue, arguments) }
    }

    @inline(never)
    private mutating func enter(_ epilogue: Epilogue, _ arguments: ArgumentList) throws(Failure) {
        try epilogue.check(geometry)
        self.epilogue = epilogue
        if epilogue.z == nil { return }
        z = try arguments.tensor(
            "epilogue->z", epilogue.z, stride: geometry.stride(epilogue.zStride, "epilogue->z_stride"))
    }

    /// Enters y and the statistics that are saved.
    @inline(__always)
    mutating func enterOutputs(
        y: UnsafeMutableRawPointer?, isNeeded: Bool = false, savedMean: UnsafeMutablePointer<Double>? = nil,
        savedInvstd: UnsafeMutablePointer<Double>? = nil, _ options: Options, _ arguments: ArgumentList
    ) throws(Failure) {
        if !options.isPlain, let saved = options.source?.saved {
            _ = try arguments.statistics("source->saved", saved, times: 4, .written)
        }
        self.y = try arguments.tensor(
            "y", y, stride: geometry.yStride, isNeeded: isNeeded, .writtenOver(placeOfX))
        self.savedMean = try arguments.statistics("saved_mean", savedMean, .written)
        savedInverseStd = try arguments.statistics("saved_invstd", savedInvstd, .written)
        guard let mask = epilogue?.mask else { return }
        if y == nil { throw Failure(BN_ERROR_NULL, "y", .null, expected: "a pointer, where there is a mask") }
        try arguments.array("epilogue->mask", mask, count: geometry.maskBytes, size: 1, .written)
    }

    /// The samples of a slice, with the rows that they have.
    func slice(_ slice: Slice, _ groups: Groups) -> Forward {
        var part = self
        part.geometry = geometry.slice(slice)
        part.x = x.slice(slice, geometry.elementSize)
        part.y = y.slice(slice, geometry.elementSize)
        part.z = z.slice(slice, geometry.elementSize)
        let parameters = groups.parameterRow(slice.group) * geometry.channels
        part.gamma = gamma?.from(parameters)
        part.beta = beta?.from(parameters)
        let saved = groups.statisticsRow(slice.group) * geometry.channels
        part.savedMean = savedMean.map { $0 + saved }
        part.savedInverseStd = savedInverseStd.map { $0 + saved }
        return part
    }

    /// A sweep that maps x to y; or one that only reads x, for its moments.
    @inline(__always)
    func sweep(_ call: Call, writes: Bool = true) -> UnsafeMutablePointer<Sweep> {
        let sweep = call.sweep(geometry)
        sweep.pointee.x = x
        if !writes { return sweep }
        sweep.pointee.out = y
        if y.base != nil { sweep.pointee.map = call.kernels.pointee.normalize }
        if epilogue != nil || geometry.weights != nil { addEpilogue(to: &sweep.pointee, call) }
        return sweep
    }

    @inline(never)
    private func addEpilogue(to sweep: inout Sweep, _ call: Call) {
        var kernel = epilogue?.kernel ?? kernel_epilogue()
        kernel.from_output = 0
        kernel.masked = geometry.weights?.masked ?? .normalize
        let showsAll = kernel.masked == .normalize
        if y.base == nil || (kernel.activation == .identity && showsAll && z.base == nil) { return }
        // Without bounds a clip is no activation.
        if kernel.activation == .identity && showsAll {
            kernel.activation = .clip
            kernel.low = -.infinity
            kernel.high = .infinity
        }
        sweep.setEpilogue(kernel, call)
        sweep.z = z
        let clipped = kernel.activation == .clip && showsAll ? call.kernels.pointee.clipped : nil
        sweep.isClip = clipped != nil
        sweep.map = clipped ?? call.kernels.pointee.activated
    }

    func finalize(_ statistics: ForwardFinalize.Statistics) -> ForwardFinalize {
        ForwardFinalize(
            statistics: statistics, gamma: gamma, beta: beta, savedMean: savedMean, savedInverseStd: savedInverseStd)
    }

    func writeMask(_ call: Call) throws(Failure) {
        guard let epilogue, let mask = epilogue.mask, geometry.count > 0 else { return }
        call.thread.pointee.setEpilogue(epilogue.passing(geometry.element), geometry.element)
        MaskWriter(geometry, y, mask, call).run()
    }
}
