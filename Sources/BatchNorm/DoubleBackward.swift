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
        let geometry = geometry.with(options)
        try options.refuse([.epilogue, .running, .source, .groups])
        try geometry.refuseWeights()
        let g = try geometry.input(dy, "dy", geometry.yStride)
        let needsX = grad.dgamma != nil || !options.frozen
        let derivatives = Derivatives(
            call: self, geometry: geometry,
            x: needsX ? try geometry.input(x, "x", geometry.xStride) : Operand(), gamma: geometry.elements(gamma),
            mean: try need(savedMean, "saved_mean"), inverseStd: try need(savedInvstd, "saved_invstd"),
            frozen: options.frozen)
        var memory = Memory(self)
        let gradient = Region("dy", dy, geometry, stride: geometry.yStride)
        let direction = Region("grad_dx", grad.dx, geometry, stride: geometry.dxStride)
        try memory.input(direction)
        try memory.input(geometry.parameters("grad_dgamma", grad.dgamma))
        try memory.input(geometry.parameters("grad_dbeta", grad.dbeta))
        try memory.input(gradient)
        try memory.input(Region("x", x, geometry, stride: geometry.xStride))
        try memory.input(geometry.parameters("gamma", gamma))
        try memory.input(geometry.statistics("saved_mean", savedMean))
        try memory.input(geometry.statistics("saved_invstd", savedInvstd))
        try memory.output(Region("grad_dy", grad.dy, geometry, stride: geometry.yStride), orExactly: direction)
        try memory.output(Region("grad_x", grad.x, geometry, stride: geometry.dxStride), orExactly: gradient)
        try memory.output(geometry.parameters("grad_gamma", grad.gamma))

        var second = try SecondDerivatives(derivatives, g: g, grad, self)
        try second.reduce()
        try second.write()
    }
}

private struct SecondDerivatives {
    let derivatives: Derivatives
    let g: Operand
    let u: Operand
    let grad: Call.SecondOrder
    let a: Elements?
    let b: Elements?
    private var kept: Kept
    private let ofU: Derivatives.Sums
    private let ofG: Derivatives.Sums
    /// Σ u and Σ u · (dy − mean(dy)), where that mean is a sum of two terms and only the first of them subtracted.
    private let ofBoth: Derivatives.Sums
    private let meanOfG: UnsafeMutablePointer<Double>
    private let restOfG: UnsafeMutablePointer<Double>
    private var geometry: Geometry { derivatives.geometry }

    init(_ derivatives: Derivatives, g: Operand, _ grad: Call.SecondOrder, _ call: Call) throws(Failure) {
        let geometry = derivatives.geometry
        self.derivatives = derivatives
        self.g = g
        self.grad = grad
        u = Operand(base: UnsafeMutableRawPointer(mutating: grad.dx), stride: geometry.dxStride)
        a = geometry.elements(grad.dgamma)
        b = geometry.elements(grad.dbeta)
        kept = try Kept(geometry.channels, sums: 3, arrays: 2, sweeps: 1, call)
        ofU = kept.sums()
        ofG = kept.sums()
        ofBoth = kept.sums()
        meanOfG = kept.array()
        restOfG = kept.array()
        // Of a tensor that is not there, all are 0.
        ofU.values.update(repeating: 0, count: 8 * geometry.channels)
    }

    func reduce() throws(Failure) {
        let isOfBoth = u.base != nil && (grad.x != nil || grad.gamma != nil)
        if !derivatives.frozen {
            // A rounding of the mean of dy, times that of u, would count as often as there are values.
            if isOfBoth { try derivatives.means(of: g, meanOfG, restOfG, scratch: ofG) }
            if u.base != nil { try derivatives.reduce(u, into: ofU) }
            try derivatives.reduce(g, into: ofG)
        }
        if isOfBoth { try derivatives.reduce(u, g, meanOfG, into: ofBoth) }
    }

    /// Nothing is written before the memory of both maps is there.
    mutating func write() throws(Failure) {
        let call = derivatives.call
        let toX = Operand(base: grad.x, stride: geometry.dxStride)
        let toDy = Operand(base: grad.dy, stride: geometry.yStride)
        let room = kept.room()
        let direction = Derivatives.Direction(v: u, sums: ofU, gamma: a, beta: b)
        // What depends on x by nothing but its statistics does not depend on constants.
        let mapsX = grad.x != nil && !(derivatives.frozen && a == nil)
        let mapsDy = grad.dy != nil && !derivatives.isConstant(direction)
        if mapsX { try sweepToX(toX, room).pointee.reserve(call) }
        if mapsDy { try derivatives.sweep(direction, to: toDy, room).pointee.reserve(call) }
        if let gamma = geometry.elements(grad.gamma) {
            for channel in 0..<geometry.channels { gamma[channel] = derivatives.inverseStd[channel] * product(channel) }
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
        let centred = ofBoth.centred[channel] - ofBoth.values[channel] * restOfG[channel]
        return centred - ofStatistics / derivatives.count
    }

    private func sweepToX(_ out: Operand, _ room: Derivatives.Room) -> UnsafeMutablePointer<Sweep> {
        if derivatives.frozen {
            return derivatives.normalization(of: g, to: out, room) { channel in
                Line(scale: (a?[channel] ?? 0) * derivatives.inverseStd[channel], shift: -0.0)
            }
        }
        return derivatives.combination(g, u.base == nil ? g : u, to: out, room, combined)
    }

    private func combined(_ channel: Int) -> Combined {
        let count = derivatives.count
        let inverseStd = derivatives.inverseStd[channel]
        let scale = derivatives.scale(channel)
        let (sumU, sumG) = (ofU.centred[channel] * inverseStd, ofG.centred[channel] * inverseStd)
        let weightOfG = (a?[channel] ?? 0) - scale * sumU / count
        let weightOfU = -scale * sumG / count
        var combined = Combined(
            scale: weightOfG * inverseStd, mean: derivatives.mean[channel], inverseStd: inverseStd)
        combined.dyMean = ofG.values[channel] / count
        combined.slope = -(weightOfG * sumG + weightOfU * sumU + scale * product(channel)) / count * inverseStd
        // Without u, dy is there twice, and once in vain.
        if u.base == nil {
            combined.zMean = combined.dyMean
        } else {
            combined.dyMean = meanOfG[channel]
            combined.shift = -restOfG[channel] * combined.scale
            combined.zMean = ofU.values[channel] / count
            combined.gain = weightOfU * inverseStd
        }
        return combined
    }
}
