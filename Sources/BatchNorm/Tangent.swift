// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The forward-mode derivative of the layer (a Jacobian-vector product).
extension Call {
    func jvp(
        _ geometry: Geometry, x: UnsafeRawPointer?, xTangent: UnsafeRawPointer?, gamma: UnsafeRawPointer?,
        gammaTangent: UnsafeRawPointer?, betaTangent: UnsafeRawPointer?, savedMean: UnsafePointer<Double>?,
        savedInvstd: UnsafePointer<Double>?, yTangent: UnsafeMutableRawPointer?, options: Options
    ) throws(Failure) {
        let geometry = geometry.with(options)
        try options.refuse([.epilogue, .running, .source, .groups])
        try geometry.refuseWeights()
        // Of constants, y depends on x by its own direction and gamma's alone.
        let needsX = gammaTangent != nil || (xTangent != nil && !options.frozen)
        let derivatives = Derivatives(
            call: self, geometry: geometry,
            x: needsX ? try geometry.input(x, "x", geometry.xStride) : Operand(), gamma: geometry.elements(gamma),
            mean: try need(savedMean, "saved_mean"), inverseStd: try need(savedInvstd, "saved_invstd"),
            frozen: options.frozen)
        let v = Operand(base: UnsafeMutableRawPointer(mutating: xTangent), stride: geometry.dxStride)
        let out = try geometry.input(yTangent, "y_tangent", geometry.yStride)
        var memory = Memory(self)
        let direction = Region("x_tangent", xTangent, geometry, stride: geometry.dxStride)
        try memory.input(Region("x", x, geometry, stride: geometry.xStride))
        try memory.input(direction)
        try memory.input(geometry.parameters("gamma", gamma))
        try memory.input(geometry.parameters("gamma_tangent", gammaTangent))
        try memory.input(geometry.parameters("beta_tangent", betaTangent))
        try memory.input(geometry.statistics("saved_mean", savedMean))
        try memory.input(geometry.statistics("saved_invstd", savedInvstd))
        try memory.output(Region("y_tangent", yTangent, geometry, stride: geometry.yStride), orExactly: direction)

        var kept = try Kept(geometry.channels, sums: 1, sweeps: 1, self)
        let sums = kept.sums()
        if v.base != nil && !options.frozen { try derivatives.reduce(v, into: sums) }
        let tangent = Derivatives.Direction(
            v: v, sums: sums, gamma: geometry.elements(gammaTangent), beta: geometry.elements(betaTangent))
        if derivatives.isConstant(tangent) { return derivatives.fill(out, with: tangent.beta) }
        try derivatives.sweep(tangent, to: out, kept.room()).pointee.run(self)
    }
}
