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
        try options.refuse([.epilogue, .running, .source, .groups])
        try geometry.refuseWeights()
        let geometry = options.geometry(geometry)
        let arguments = options.arguments(self, geometry)
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
            inverseStd: try arguments.needed(statistics: "saved_invstd", savedInvstd), frozen: options.frozen)
        let toDy = try arguments.tensor(
            "grad_dy", grad.dy, stride: geometry.yStride, isNeeded: false, .writtenOver(placeOfU))
        let toX = try arguments.tensor(
            "grad_x", grad.x, stride: geometry.dxStride, isNeeded: false, .writtenOver(placeOfDy))
        let toGamma = try arguments.parameter("grad_gamma", grad.gamma, .written)

        var second = try SecondDerivatives(
            derivatives, g: g, u: u, a: a, b: b, toDy: toDy, toX: toX, toGamma: toGamma, self)
        try second.reduce()
        try second.write()
    }
}

private struct SecondDerivatives {
    let derivatives: Derivatives
    let g: Operand
    let u: Operand
    let a: Elements?
    let b: Elements?
    let toDy: Operand
    let toX: Operand
    let toGamma: Elements?
    private var scratch: DerivativeScratch
    private let ofU: Derivatives.Sums
    private let ofG: Derivatives.Sums
    /// Σ u and Σ u · (dy − mean(dy)), where that mean is a sum of two terms and only the first of them subtracted.
    private let ofBoth: Derivatives.Sums
    private let meanOfG: UnsafeMutablePointer<Double>
    private let meanTailOfG: UnsafeMutablePointer<Double>
    private var geometry: Geometry { derivatives.geometry }

    init(
        _ derivatives: Derivatives, g: Operand, u: Operand, a: Elements?, b: Elements?, toDy: Operand, toX: Operand,
        toGamma: Elements?, _ call: Call
    ) throws(Failure) {
        let channels = derivatives.geometry.channels
        self.derivatives = derivatives
        self.g = g
        self.u = u
        self.a = a
        self.b = b
        self.toDy = toDy
        self.toX = toX
        self.toGamma = toGamma
        scratch = try DerivativeScratch(channels, sums: 3, arrays: 2, call)
        ofU = scratch.sums()
        ofG = scratch.sums()
        ofBoth = scratch.sums()
        meanOfG = scratch.array()
        meanTailOfG = scratch.array()
        // The sums of a tensor that is not there are 0.
        scratch.clear()
    }

    func reduce() throws(Failure) {
        let isOfBoth = u.base != nil && (toX.base != nil || toGamma != nil)
        if !derivatives.frozen {
            // A rounding of the mean of dy, times that of u, would count as often as there are values.
            if isOfBoth { try derivatives.means(of: g, meanOfG, meanTailOfG, scratch: ofG) }
            if u.base != nil { try derivatives.reduce(u, into: ofU) }
            try derivatives.reduce(g, into: ofG)
        }
        if isOfBoth { try derivatives.reduce(u, g, meanOfG, into: ofBoth) }
    }

    /// Nothing is written before the memory of both maps is there.
    mutating func write() throws(Failure) {
        let call = derivatives.call
        let room = scratch.room
        let direction = Derivatives.Direction(v: u, sums: ofU, gamma: a, beta: b)
        // If the statistics are constants, grad_x is 0 unless dgamma has a gradient.
        let mapsX = toX.base != nil && !(derivatives.frozen && a == nil)
        let mapsDy = toDy.base != nil && !derivatives.isConstant(direction)
        if mapsX { try sweepToX(toX, room).pointee.reserve(call) }
        if mapsDy { try derivatives.sweep(direction, to: toDy, room).pointee.reserve(call) }
        if let toGamma {
            for channel in 0..<geometry.channels {
                toGamma[channel] = derivatives.inverseStd[channel] * product(channel)
            }
        }
        if mapsX { try sweepToX(toX, room).pointee.run(call) } else { derivatives.fill(toX, with: nil) }
        if mapsDy {
            try derivatives.sweep(direction, to: toDy, room).pointee.run(call)
        } else {
            derivatives.fill(toDy, with: b)
        }
    }

    /// A; and Σ u · dy with constants for statistics.
    private func product(_ channel: Int) -> Double {
        let inverseStd = derivatives.inverseStd[channel]
        let ofStatistics = (ofU.centred[channel] * inverseStd) * (ofG.centred[channel] * inverseStd)
        let centred = ofBoth.centred[channel] - ofBoth.values[channel] * meanTailOfG[channel]
        return centred - ofStatistics / derivatives.count
    }

    private func sweepToX(_ out: Operand, _ room: Derivatives.Room) -> UnsafeMutablePointer<Sweep> {
        if derivatives.frozen {
            return derivatives.normalization(of: g, to: out, room) { channel in
                ChannelMap(scale: (a?[channel] ?? 0) * derivatives.inverseStd[channel], shift: -0.0)
            }
        }
        return derivatives.combination(g, u.base == nil ? g : u, to: out, room, combined)
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
            combined.dyMean = meanOfG[channel]
            combined.shift = -meanTailOfG[channel] * combined.scale
            combined.zMean = ofU.values[channel] / count
            combined.gain = weightOfU * inverseStd
        }
        return combined
    }
}
