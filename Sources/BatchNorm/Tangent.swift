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
        var sweep = derivatives.sweep(tangent, to: out, kept.room())
        try sweep.run(self)
    }
}

/// What a derivative keeps of its channels from one sweep to the next.
struct Kept {
    private let channels: Int
    private var next: UnsafeMutableRawPointer

    init(_ channels: Int, sums: Int, arrays: Int = 0, sweeps: Int, _ call: Call) throws(Failure) {
        self.channels = channels
        let room = MemoryLayout<Line>.stride + MemoryLayout<Combined>.stride
        let each = (2 * sums + arrays) * MemoryLayout<Double>.stride + sweeps * room
        let bytes = channels.multipliedReportingOverflow(by: each)
        next = try call.thread.pointee.kept.reserve(bytes.overflow ? Int.max : bytes.partialValue)
    }

    mutating func sums() -> Derivatives.Sums { Derivatives.Sums(values: array(), centred: array()) }

    mutating func array() -> UnsafeMutablePointer<Double> { take(Double.self) }

    mutating func room() -> Derivatives.Room { Derivatives.Room(lines: take(Line.self), combined: take(Combined.self)) }

    private mutating func take<T>(_: T.Type) -> UnsafeMutablePointer<T> {
        defer { next += channels * MemoryLayout<T>.stride }
        return next.bindMemory(to: T.self, capacity: channels)
    }
}
