// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The gradients of the backward call: of a loss that depends on dx, dgamma and dbeta.
///
/// With u, a and b its gradients by these three, U = Σ u · x_hat, G = Σ dy · x_hat and A = Σ u · (dy − mean(dy)) − U · G / M,
///
///     grad_dy    = gamma · P(u) + a · x_hat + b
///     grad_gamma = Σ u · P(dy) = invstd · A
///     grad_x     = a · P(dy) − gamma · invstd / M · (U · P(dy) + G · P(u) + invstd · A · x_hat)
///
/// where the last is what dx and dgamma owe to x by way of x_hat and of invstd.
extension Call {
    /// The gradients that are given, by dx, dgamma and dbeta, and those that are wanted.
    struct SecondOrder {
        var dx: UnsafeRawPointer?
        var dgamma: UnsafeRawPointer?
        var dbeta: UnsafeRawPointer?
        var dy: UnsafeMutableRawPointer?
        var x: UnsafeMutableRawPointer?
        var gamma: UnsafeMutableRawPointer?
    }

    func doubleBackward(
        _ geometry: Geometry, _ grad: SecondOrder, dy: UnsafeRawPointer?, x: UnsafeRawPointer?,
        gamma: UnsafeRawPointer?, savedMean: UnsafePointer<Double>?, savedInvstd: UnsafePointer<Double>?,
        options: Options
    ) throws(Failure) {
        try options.refuse([.epilogue, .running, .source])
        try geometry.refuseWeights()
        let geometry = options.geometry(geometry)
        let arguments = try options.arguments(self, geometry)
        let u = try arguments.tensor("grad_dx", grad.dx, stride: geometry.dxStride, isNeeded: false)
        let placeOfU = arguments.latest
        let (a, b) = try arguments.parameters(("grad_dgamma", "grad_dbeta"), grad.dgamma, grad.dbeta)
        let g = try arguments.tensor("dy", dy, stride: geometry.yStride)
        let placeOfDy = arguments.latest
        let needsX = grad.dgamma != nil || !options.frozen
        let x = try arguments.tensor("x", x, stride: geometry.xStride, isNeeded: needsX)
        let gamma = try arguments.parameter("gamma", gamma)
        let derivatives = Derivatives(
            call: self, geometry: geometry, x: needsX ? x : Operand(), gamma: gamma,
            mean: try arguments.needed(statistics: "saved_mean", savedMean),
            inverseStd: try arguments.needed(statistics: "saved_invstd", savedInvstd), frozen: options.frozen,
            groups: options.groups ?? Groups())
        try options.groups?.enter(arguments)
        if derivatives.groups.gains && !options.frozen {
            throw Failure(
                BN_ERROR_OPTION, "groups->per_group", .integer(Int(BN_PER_GROUP_PARAMETERS.rawValue)),
                expected: "STATISTICS (1) beside PARAMETERS (4), unless frozen is 1")
        }
        let toDy = try arguments.tensor(
            "grad_dy", grad.dy, stride: geometry.yStride, isNeeded: false, .writtenOver(placeOfU))
        let toX = try arguments.tensor(
            "grad_x", grad.x, stride: geometry.dxStride, isNeeded: false, .writtenOver(placeOfDy))
        let toGamma = try arguments.parameter("grad_gamma", grad.gamma, .written)

        let second = try SecondDerivatives(
            derivatives, g: g, u: u, a: a, b: b, toDy: toDy, toX: toX, toGamma: toGamma)
        try second.reduce()
        try second.write()
    }
}

private struct SecondDerivatives {
    private var derivatives: Derivatives
    private var g: Operand
    private var u: Operand
    private var a: Elements?
    private var b: Elements?
    private var toDy: Operand
    private var toX: Operand
    private let toGamma: Elements?
    private let scratch: DerivativeScratch
    private var ofU: Derivatives.Sums
    private var ofG: Derivatives.Sums
    /// Σ u and Σ u · (dy − mean(dy)), where that mean is a sum of two terms and only the first of them subtracted.
    private var ofBoth: Derivatives.Sums
    private var meansOfG: MomentsArray
    private var geometry: Geometry { derivatives.geometry }

    init(
        _ derivatives: Derivatives, g: Operand, u: Operand, a: Elements?, b: Elements?, toDy: Operand, toX: Operand,
        toGamma: Elements?
    ) throws(Failure) {
        self.derivatives = derivatives
        self.g = g
        self.u = u
        self.a = a
        self.b = b
        self.toDy = toDy
        self.toX = toX
        self.toGamma = toGamma
        var scratch = try DerivativeScratch(derivatives, sums: 3, hasMoments: true)
        ofU = scratch.sums()
        ofG = scratch.sums()
        ofBoth = scratch.sums()
        meansOfG = scratch.momentsOfRow(0)
        self.scratch = scratch
    }

    /// The samples of a slice, with the rows that they have.
    private func part(_ slice: Slice) -> SecondDerivatives {
        var part = self
        let size = geometry.elementSize
        part.derivatives = derivatives.part(slice, scratch.counts)
        part.g = g.slice(slice, size)
        part.u = u.slice(slice, size)
        part.toDy = toDy.slice(slice, size)
        part.toX = toX.slice(slice, size)
        let parameters = derivatives.groups.parameterRow(slice.group) * geometry.channels
        part.a = a?.from(parameters)
        part.b = b?.from(parameters)
        let row = derivatives.row(slice.group)
        part.ofU = ofU.from(row * geometry.channels)
        part.ofG = ofG.from(row * geometry.channels)
        part.ofBoth = ofBoth.from(row * geometry.channels)
        part.meansOfG = scratch.momentsOfRow(row)
        return part
    }

    func reduce() throws(Failure) {
        let isOfBoth = u.base != nil && (toX.base != nil || toGamma != nil)
        if !derivatives.frozen {
            // A rounding of the mean of dy, times that of u, would count as often as there are values.
            if isOfBoth { try findMeans() }
            if u.base != nil { try derivatives.reduce(u, into: ofU, scratch) }
            try derivatives.reduce(g, into: ofG, scratch)
        }
        if isOfBoth { try derivatives.reduce(u, about: g, into: ofBoth, scratch) }
    }

    private func findMeans() throws(Failure) {
        var geometry = geometry
        geometry.xStride = g.stride
        var slices = derivatives.groups.slicesOfStatistics(geometry.outer)
        while let slice = slices.next() {
            try derivatives.call.reduce(g, geometry, slice, into: scratch.momentsOfRow(derivatives.row(slice.group)))
        }
    }

    /// Nothing is written before the memory of all maps is there.
    @_optimize(size)
    func write() throws(Failure) {
        let call = derivatives.call
        // If the statistics are constants, grad_x is 0 unless dgamma has a gradient.
        let mapsX = toX.base != nil && !(derivatives.frozen && a == nil)
        let mapsDy = toDy.base != nil && !derivatives.isConstant(direction)
        var slices = derivatives.groups.slices(geometry.outer)
        while let slice = slices.next() {
            if mapsX { try part(slice).sweepToX().pointee.reserve(call) }
            if mapsDy { try part(slice).sweepToDy().pointee.reserve(call) }
        }
        if let toGamma { write(toGamma) }
        slices = derivatives.groups.slices(geometry.outer)
        while let slice = slices.next() {
            let part = part(slice)
            if mapsX { try part.sweepToX().pointee.run(call) } else { part.derivatives.fill(part.toX, with: nil) }
            if mapsDy { try part.sweepToDy().pointee.run(call) } else { part.derivatives.fill(part.toDy, with: part.b) }
        }
    }

    /// A gamma that groups share has the sum of their gradients.
    private func write(_ toGamma: Elements) {
        let groups = derivatives.groups
        for parameterRow in 0..<groups.parameterRows {
            let rows = groups.ownParameters ? parameterRow..<parameterRow + 1 : 0..<derivatives.rows
            for channel in 0..<geometry.channels {
                var sum = -0.0
                for row in rows {
                    let part = part(Slice(start: 0, count: 0, step: 1, group: row))
                    sum += part.derivatives.inverseStd[channel] * part.product(channel)
                }
                toGamma[parameterRow * geometry.channels + channel] = sum
            }
        }
    }

    private var direction: Derivatives.Direction { Derivatives.Direction(v: u, sums: ofU, gamma: a, beta: b) }

    private func sweepToDy() -> UnsafeMutablePointer<Sweep> {
        derivatives.sweep(direction, to: toDy, scratch.room)
    }

    /// A; and Σ u · dy with constants for statistics.
    private func product(_ channel: Int) -> Double {
        let inverseStd = derivatives.inverseStd[channel]
        let ofStatistics = (ofU.centred[channel] * inverseStd) * (ofG.centred[channel] * inverseStd)
        let centred = ofBoth.centred[channel] - ofBoth.values[channel] * meansOfG.meanTails[channel]
        return centred - ofStatistics / derivatives.count
    }

    private func sweepToX() -> UnsafeMutablePointer<Sweep> {
        if derivatives.frozen {
            return derivatives.normalization(of: g, to: toX, scratch.room) { channel in
                ChannelMap(scale: (a?[channel] ?? 0) * derivatives.inverseStd[channel], shift: -0.0)
            }
        }
        return derivatives.combination(g, u.base == nil ? g : u, to: toX, scratch.room, combined)
    }

    private func combined(_ channel: Int) -> ThreeTensorMap {
        let count = derivatives.count
        let inverseStd = derivatives.inverseStd[channel]
        let scale = derivatives.scale(channel)
        let (sumU, sumG) = (ofU.centred[channel] * inverseStd, ofG.centred[channel] * inverseStd)
        let weightOfG = (a?[channel] ?? 0) - scale * sumU / count
        let weightOfU = -scale * sumG / count
        var combined = ThreeTensorMap(
            scale: weightOfG * inverseStd, mean: derivatives.mean[channel], inverseStd: inverseStd)
        combined.dyMean = ofG.values[channel] / count
        combined.slope = -(weightOfG * sumG + weightOfU * sumU + scale * product(channel)) / count * inverseStd
        // Without grad_dx, dy is passed in both slots; the second has coefficient 0.
        if u.base == nil {
            combined.zMean = combined.dyMean
        } else {
            combined.dyMean = meansOfG.means[channel]
            combined.shift = -meansOfG.meanTails[channel] * combined.scale
            combined.zMean = ofU.values[channel] / count
            combined.gain = weightOfU * inverseStd
        }
        return combined
    }
}
