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
        let geometry = options.geometry(geometry)
        let arguments = try options.arguments(self, geometry)
        let dyOperand = try arguments.tensor("dy", dy, stride: geometry.yStride)
        let placeOfDy = arguments.latest
        // If x is NULL only Σdy is needed; dy is passed in x's place, because the loop reads both.
        let needsArgument = options.epilogue.map { $0.needsArgument || $0.kernel.from_output != 0 } ?? false
        let withoutX = x == nil && options.frozen && dgamma == nil && !needsArgument
        let xOperand = try arguments.tensor("x", x, stride: geometry.xStride, isNeeded: !withoutX)
        let (gamma, beta) = try arguments.parameters(("gamma", "beta"), gamma, beta)
        var backward = Backward(
            geometry: geometry, dy: dyOperand, x: withoutX ? dyOperand : xOperand, gamma: gamma, beta: beta,
            mean: try arguments.needed(statistics: "saved_mean", savedMean),
            inverseStd: try arguments.needed(statistics: "saved_invstd", savedInvstd),
            saved: options.source?.saved.map { UnsafePointer($0) }, frozen: options.frozen)
        if !options.isPlain || geometry.weights != nil {
            try backward.enterOthers(options, wantsDx: dx != nil, placeOfDy, arguments, self)
        }
        backward.dx = try arguments.tensor(
            "dx", dx, stride: geometry.dxStride, isNeeded: false, .writtenOver(placeOfDy))
        let (dgamma, dbeta) = try arguments.parameters(("dgamma", "dbeta"), dgamma, dbeta, .written)
        if geometry.weights != nil { try backward.geometry.weigh() }
        // As the forward call judged it.
        let freezesSingle = options.source == nil && options.running?.singleValue == BN_SINGLE_VALUE_RUNNING
        if options.groups == nil && ((freezesSingle && backward.geometry.isSingle) || backward.savedConstants) {
            backward.freeze()
        }
        let needsSums = dgamma != nil || dbeta != nil || (dx != nil && !backward.frozen)
        if let groups = options.groups {
            try GroupedBackward(backward, groups, (dgamma, dbeta), freezesSingle: freezesSingle, call: self)
                .run(needsSums: needsSums)
            return
        }
        let sweep = backward.sweep(self, reduces: needsSums, maps: true)
        var finalize = backward.finalize(needsSums ? .reduced(count: backward.geometry.values) : .none)
        finalize.dgamma = dgamma
        finalize.dbeta = dbeta
        sweep.pointee.finalize = self.finalize(finalize)
        try sweep.pointee.run(self)
    }
}

extension Backward {
    /// Enters the arguments that descriptors point to.
    @inline(never)
    fileprivate mutating func enterOthers(
        _ options: Options, wantsDx: Bool, _ placeOfDy: Int, _ arguments: ArgumentList, _ call: Call
    ) throws(Failure) {
        try geometry.enterWeights(arguments)
        setWeights(wantsDx: wantsDx)
        try options.groups?.enter(arguments)
        if let saved = options.source?.saved {
            _ = try arguments.statistics("source->saved", saved, times: 4, .read)
        }
        let groups = options.groups ?? Groups()
        if groups.gains { hasEpilogue = true }
        guard let given = options.epilogue else { return }
        try given.check(geometry)
        var kernel = given.kernel
        kernel.masked = epilogue.masked
        kernel.frozen = epilogue.frozen
        epilogue = kernel
        // With x, and nothing but a clip to look after.
        isClip = kernel.activation == .clip && given.mask == nil && kernel.frozen == 0 && !hasEpilogue
        hasEpilogue = hasEpilogue || kernel.activation != .identity || given.dz != nil || kernel.from_output != 0
        try enter(given, placeOfDy, arguments)
        if kernel.from_output != 0 { try undo(options, groups, call) }
    }

    private mutating func enter(
        _ epilogue: Epilogue, _ placeOfDy: Int, _ arguments: ArgumentList
    ) throws(Failure) {
        if epilogue.z != nil && epilogue.needsArgument {
            z = try arguments.tensor(
                "epilogue->z", epilogue.z, stride: geometry.stride(epilogue.zStride, "epilogue->z_stride"))
        }
        if let mask = epilogue.mask {
            bits = kernel_bits(base: mask, first: 0, stride: geometry.channels * geometry.inner)
            try arguments.array("epilogue->mask", mask, count: geometry.maskBytes, size: 1)
        }
        if let given = epilogue.dz {
            dz = try arguments.tensor(
                "epilogue->dz", given, stride: geometry.stride(epilogue.dzStride, "epilogue->dz_stride"),
                isNeeded: false, .writtenOver(placeOfDy))
        }
    }

    /// x_hat of the output: (activation⁻¹(y) − beta) / gamma, so that beta is the mean and 1 / gamma the inverse deviation.
    private mutating func undo(_ options: Options, _ groups: Groups, _ call: Call) throws(Failure) {
        if options.source != nil || groups.gains {
            throw Failure(
                BN_ERROR_OPTION, "epilogue->from_output", .integer(1),
                expected: "0 with a source, and with parameters per group that share their statistics")
        }
        let (rows, channels) = (groups.statisticsRows, geometry.channels)
        let count = rows * channels
        var layout = ArrayLayout()
        let (means, inverseStds) = (layout.add(Double.self, count), layout.add(Double.self, count))
        let memory = try call.thread.pointee.undone.reserve(layout)
        for row in 0..<rows {
            for channel in 0..<channels {
                let parameter = groups.parameterRow(row) * channels + channel
                let scale = gamma?[parameter] ?? 1
                if scale == 0 {
                    throw Failure(
                        BN_ERROR_OPTION, "gamma", .element(parameter, 0),
                        expected: "a number other than 0: x_hat cannot be found from the output")
                }
                means.in(memory)[row * channels + channel] = beta?[parameter] ?? 0
                inverseStds.in(memory)[row * channels + channel] = 1 / scale
            }
        }
        forwardInverseStd = inverseStd
        mean = UnsafePointer(means.in(memory))
        inverseStd = UnsafePointer(inverseStds.in(memory))
    }
}
