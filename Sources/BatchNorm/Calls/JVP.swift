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
        try options.refuse([.epilogue, .running, .source])
        try geometry.refuseWeights()
        let geometry = options.geometry(geometry)
        let arguments = try options.arguments(self, geometry)
        // If the statistics are constants, y depends on x only through x_tangent and gamma_tangent.
        let needsX = gammaTangent != nil || (xTangent != nil && !options.frozen)
        let x = try arguments.tensor("x", x, stride: geometry.xStride, isNeeded: needsX)
        let v = try arguments.tensor("x_tangent", xTangent, stride: geometry.dxStride, isNeeded: false)
        let placeOfV = arguments.latest
        let gamma = try arguments.parameter("gamma", gamma)
        let (gammaDirection, betaDirection) = try arguments.parameters(
            ("gamma_tangent", "beta_tangent"), gammaTangent, betaTangent)
        let derivatives = Derivatives(
            call: self, geometry: geometry, x: needsX ? x : Operand(), gamma: gamma,
            mean: try arguments.needed(statistics: "saved_mean", savedMean),
            inverseStd: try arguments.needed(statistics: "saved_invstd", savedInvstd), frozen: options.frozen,
            groups: options.groups ?? Groups())
        try options.groups?.enter(arguments)
        let out = try arguments.tensor("y_tangent", yTangent, stride: geometry.yStride, .writtenOver(placeOfV))

        var scratch = try DerivativeScratch(derivatives, sums: 1)
        let sums = scratch.sums()
        if v.base != nil && !options.frozen { try derivatives.reduce(v, into: sums, scratch) }
        let tangent = Derivatives.Direction(
            v: v, sums: sums, gamma: gammaDirection, beta: betaDirection)
        var slices = derivatives.groups.slices(geometry.outer)
        if !derivatives.isConstant(tangent) {
            return try run(slices) { slice in
                derivatives.part(slice, scratch.counts).sweep(
                    tangent.part(slice, derivatives), to: out.slice(slice, geometry.elementSize), scratch.room)
            }
        }
        while let slice = slices.next() {
            derivatives.part(slice, scratch.counts).fill(
                out.slice(slice, geometry.elementSize), with: tangent.part(slice, derivatives).beta)
        }
    }
}
