// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The tensors and parameters of a backward call, or of a slice of its samples.
struct Backward {
    var geometry: Geometry
    var dy = Operand()
    var x = Operand()
    var dx = Operand()
    var z = Operand()
    var dz = Operand()
    var gamma: Elements?
    var beta: Elements?
    /// The statistics that x_hat is computed with. The forward call normalized with another invstd, if x_hat is computed from
    /// its output.
    var mean: UnsafePointer<Double>
    var inverseStd: UnsafePointer<Double>
    var forwardInverseStd: UnsafePointer<Double>?
    var saved: UnsafePointer<Double>?
    var bits = kernel_bits()
    var frozen = false
    /// The epilogue of the loops, if they need one; and if the loops for clips are enough.
    var epilogue = kernel_epilogue()
    var hasEpilogue = false
    var isClip = false

    /// The samples of a slice, with the rows that they have.
    func slice(_ slice: Slice, _ groups: Groups) -> Backward {
        var part = self
        part.geometry = geometry.slice(slice)
        let size = geometry.elementSize
        part.dy = dy.slice(slice, size)
        part.x = x.slice(slice, size)
        part.dx = dx.slice(slice, size)
        part.z = z.slice(slice, size)
        part.dz = dz.slice(slice, size)
        part.bits.first += slice.start * bits.stride
        part.bits.stride *= slice.step
        let row = groups.statisticsRow(slice.group) * geometry.channels
        let parameters = groups.parameterRow(slice.group) * geometry.channels
        part.gamma = gamma?.from(parameters)
        part.beta = beta?.from(parameters)
        part.mean = mean + row
        part.inverseStd = inverseStd + row
        part.forwardInverseStd = forwardInverseStd.map { $0 + row }
        part.saved = saved.map { $0 + 4 * row }
        return part
    }

    /// The forward call's source took constants for the statistics of every channel. Sums times 0 would say so too, but not
    /// where they are infinite.
    var savedConstants: Bool {
        guard let saved else { return false }
        for channel in 0..<geometry.channels where saved[4 * channel + 1] != 0 || saved[4 * channel + 2] != 0 {
            return false
        }
        return true
    }

    func finalize(_ sums: BackwardFinalize.SumsOverBatch) -> BackwardFinalize {
        BackwardFinalize(
            sums: sums, inverseStd: inverseStd, mean: mean, forwardInverseStd: forwardInverseStd, saved: saved,
            frozen: frozen || dx.base == nil, gamma: gamma, beta: beta, hasEpilogue: hasEpilogue,
            isToZ: dx.base == nil && dz.base != nil)
    }

    /// A sweep for the sums over dy, or for dx and dz, or for both.
    @inline(__always)
    func sweep(_ call: Call, reduces: Bool, maps: Bool) -> UnsafeMutablePointer<Sweep> {
        let sweep = call.sweep(geometry)
        fill(&sweep.pointee, call, reduces: reduces, maps: maps)
        return sweep
    }

    @inline(__always)
    private func fill(_ sweep: inout Sweep, _ call: Call, reduces: Bool, maps: Bool) {
        sweep.dy = dy
        sweep.x = x
        sweep.z = z
        sweep.bits = bits
        if reduces { sweep.reduction = .gradientSums(mean: mean, inverseStd: inverseStd) }
        if hasEpilogue { sweep.setEpilogue(epilogue, call) }
        sweep.isClip = isClip
        if !maps || (dx.base == nil && dz.base == nil) { return }
        // Where dz alone is wanted, it is what is mapped to.
        sweep.out = dx.base == nil ? dz : dx
        if dx.base != nil { sweep.dz = dz }
        if hasEpilogue {
            let clipped = isClip ? call.kernels.pointee.clipped_gradient : nil
            sweep.map = clipped ?? call.kernels.pointee.activated_gradient
        } else {
            // With constants for statistics, dx is dy scaled: normalized, with a mean of 0.
            sweep.map = frozen ? call.kernels.pointee.normalize : call.kernels.pointee.gradient
            sweep.mapsDy = frozen
        }
    }

    /// Sets the loops' epilogue for weights, which depends on whether dx is wanted.
    mutating func setWeights(wantsDx: Bool) {
        epilogue.masked = geometry.weights?.masked ?? .normalize
        // BN_MASKED_KEEP is about dx; dz is 0 there.
        if !wantsDx && epilogue.masked == .keep { epilogue.masked = .zero }
        epilogue.frozen = frozen || !wantsDx ? 1 : 0
        hasEpilogue = geometry.weights != nil && (!frozen || epilogue.masked != .normalize)
    }

    /// Takes the statistics for constants.
    mutating func freeze() {
        frozen = true
        epilogue.frozen = 1
        // Its loops know gradients through statistics alone, and would make NaN of what is infinite.
        isClip = false
    }
}
