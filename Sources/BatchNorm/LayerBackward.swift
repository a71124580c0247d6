// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The backward call of the layer.
extension Call {
    func backward(
        _ geometry: Geometry, dy: UnsafeRawPointer?, x: UnsafeRawPointer?, gamma: UnsafeRawPointer?,
        beta: UnsafeRawPointer?, savedMean: UnsafePointer<Double>?, savedInvstd: UnsafePointer<Double>?,
        dx: UnsafeMutableRawPointer?, dgamma: UnsafeMutableRawPointer?, dbeta: UnsafeMutableRawPointer?,
        options: Options
    ) throws(Failure) {
        let geometry = geometry.with(options)
        let groups = options.groups ?? Groups()
        let dyOperand = try geometry.input(dy, "dy", geometry.yStride)
        // Without x nothing but Σdy is asked of the reduction, and dy serves for what it reads there.
        let needsArgument = options.epilogue.map { $0.needsArgument || $0.kernel.from_output != 0 } ?? false
        let withoutX = x == nil && options.frozen && dgamma == nil && !needsArgument
        var backward = Backward(
            geometry: geometry, dy: dyOperand, x: withoutX ? dyOperand : try geometry.input(x, "x", geometry.xStride),
            dx: Operand(base: dx, stride: geometry.dxStride), gamma: geometry.elements(gamma),
            beta: geometry.elements(beta), mean: try need(savedMean, "saved_mean"),
            inverseStd: try need(savedInvstd, "saved_invstd"),
            saved: options.source?.saved.map { UnsafePointer($0) }, frozen: options.frozen)
        var memory = Memory(self)
        let gradient = Region("dy", dy, geometry, stride: geometry.yStride)
        try memory.input(gradient)
        try memory.input(Region("x", x, geometry, stride: geometry.xStride))
        try memory.input(geometry.parameters("gamma", gamma, rows: groups.parameterRows))
        try memory.input(geometry.parameters("beta", beta, rows: groups.parameterRows))
        try memory.input(geometry.statistics("saved_mean", savedMean, rows: groups.statisticsRows))
        try memory.input(geometry.statistics("saved_invstd", savedInvstd, rows: groups.statisticsRows))
        if !options.isPlain || geometry.weights != nil {
            try backward.addOthers(options, groups, to: &memory, gradient, self)
        }
        try memory.output(Region("dx", dx, geometry, stride: geometry.dxStride), orExactly: gradient)
        try memory.output(geometry.parameters("dgamma", dgamma, rows: groups.parameterRows))
        try memory.output(geometry.parameters("dbeta", dbeta, rows: groups.parameterRows))
        if geometry.weights != nil { try backward.geometry.weigh() }
        // As the forward call judged it.
        let freezesSingle = options.source == nil && options.running?.singleValue == BN_SINGLE_VALUE_RUNNING
        if options.groups == nil && ((freezesSingle && backward.geometry.isSingle) || backward.savedConstants) {
            backward.freeze()
        }
        let needsSums = dgamma != nil || dbeta != nil || (dx != nil && !backward.frozen)
        if options.groups != nil {
            let parameters = (geometry.elements(dgamma), geometry.elements(dbeta))
            try GroupedBackward(backward, groups, parameters, freezesSingle: freezesSingle, self)
                .run(needsSums: needsSums)
            return
        }
        let sweep = sweep(backward.geometry)
        backward.fill(&sweep.pointee, self, reduces: needsSums, maps: true)
        var settlement = backward.settlement(needsSums ? .reduced(count: backward.geometry.values) : .none)
        settlement.dgamma = geometry.elements(dgamma)
        settlement.dbeta = geometry.elements(dbeta)
        sweep.pointee.settlement = self.settlement(settlement)
        try sweep.pointee.run(self)
    }
}

extension Backward {
    /// Sets the loops' epilogue for weights; dx has to be known.
    mutating func tellOfWeights() {
        epilogue.masked = geometry.weights?.masked ?? KERNEL_MASKED_NORMALIZE
        // What is kept is dx; dz is 0 there.
        if dx.base == nil && epilogue.masked == KERNEL_MASKED_KEEP { epilogue.masked = KERNEL_MASKED_ZERO }
        epilogue.frozen = frozen || dx.base == nil ? 1 : 0
        hasEpilogue = geometry.weights != nil && (!frozen || epilogue.masked != KERNEL_MASKED_NORMALIZE)
    }

    /// Takes the statistics for constants.
    mutating func freeze() {
        frozen = true
        epilogue.frozen = 1
        // Its loops know gradients through statistics alone, and would make NaN of what is infinite.
        isClip = false
    }

    /// What the descriptors tell of.
    @inline(never)
    fileprivate mutating func addOthers(
        _ options: Options, _ groups: Groups, to memory: inout Memory, _ dyRegion: Region, _ call: Call
    ) throws(Failure) {
        try geometry.addWeights(to: &memory)
        tellOfWeights()
        if options.groups != nil { try groups.check(geometry, &memory) }
        if let source = options.source { try memory.input(source.region(groups.statisticsRows, geometry.channels)) }
        if groups.ownParameters && !groups.ownStatistics { hasEpilogue = true }
        if let given = options.epilogue {
            try given.check(geometry)
            var kernel = given.kernel
            kernel.masked = epilogue.masked
            kernel.frozen = epilogue.frozen
            epilogue = kernel
            // With x, and nothing but a clip to look after.
            isClip = kernel.activation == KERNEL_CLIP && given.mask == nil && kernel.frozen == 0 && !hasEpilogue
            hasEpilogue =
                hasEpilogue || kernel.activation != KERNEL_IDENTITY || given.dz != nil || kernel.from_output != 0
            try add(given, to: &memory, dyRegion)
            if kernel.from_output != 0 { try undo(options, groups, call) }
        }
    }

    private mutating func add(
        _ epilogue: Epilogue, to memory: inout Memory, _ dyRegion: Region
    ) throws(Failure) {
        if epilogue.z != nil && epilogue.needsArgument {
            z = Operand(
                base: UnsafeMutableRawPointer(mutating: epilogue.z),
                stride: try geometry.stride(epilogue.zStride, "epilogue->z_stride"))
            try memory.input(Region("epilogue->z", epilogue.z, geometry, stride: z.stride))
        }
        if let mask = epilogue.mask {
            bits = kernel_bits(base: mask, first: 0, stride: geometry.channels * geometry.inner)
            try memory.input(geometry.mask(mask))
        }
        if let given = epilogue.dz {
            dz = Operand(base: given, stride: try geometry.stride(epilogue.dzStride, "epilogue->dz_stride"))
            try memory.output(Region("epilogue->dz", given, geometry, stride: dz.stride), orExactly: dyRegion)
        }
    }

    /// x_hat of the output: (activation⁻¹(y) − beta) / gamma, so that beta is the mean and 1 / gamma the inverse deviation.
    private mutating func undo(_ options: Options, _ groups: Groups, _ call: Call) throws(Failure) {
        if options.source != nil || (groups.ownParameters && !groups.ownStatistics) {
            throw Failure(
                BN_ERROR_OPTION, "epilogue->from_output", .integer(1),
                expected: "0 with a source, and with parameters per group that share their statistics")
        }
        let (rows, channels) = (groups.statisticsRows, geometry.channels)
        let count = rows * channels
        let memory = try call.thread.pointee.undone.reserve(2 * count * 8).assumingMemoryBound(to: Double.self)
        for row in 0..<rows {
            for channel in 0..<channels {
                let parameter = groups.parameterRow(row) * channels + channel
                let scale = gamma?[parameter] ?? 1
                if scale == 0 {
                    throw Failure(
                        BN_ERROR_OPTION, "gamma", .element(parameter, 0),
                        expected: "a number other than 0: x_hat cannot be found from the output")
                }
                memory[row * channels + channel] = beta?[parameter] ?? 0
                memory[count + row * channels + channel] = 1 / scale
            }
        }
        forwardInverseStd = inverseStd
        mean = UnsafePointer(memory)
        inverseStd = UnsafePointer(memory + count)
    }
}
