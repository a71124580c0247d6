// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// A checked bn_epilogue: what follows normalization.
struct Epilogue {
    private(set) var kernel = kernel_epilogue()
    let z: UnsafeRawPointer?
    let dz: UnsafeMutableRawPointer?
    let zStride: Int
    let dzStride: Int
    let mask: UnsafeMutablePointer<UInt8>?

    init(_ given: bn_epilogue) throws(Failure) {
        try checkSize(
            given.struct_size, bn_epilogue.self, "epilogue->struct_size", expected: "sizeof(bn_epilogue)")
        guard given.slope >= 0, given.slope < .infinity else {
            throw Failure(
                BN_ERROR_OPTION, "epilogue->slope", .real(given.slope), expected: "a finite number, at least 0")
        }
        guard given.low < given.high else {
            throw Failure(BN_ERROR_OPTION, "epilogue->low", .real(given.low), expected: "a number below high")
        }
        kernel.slope = given.slope
        kernel.low = given.low
        kernel.high = given.high
        switch given.activation {
        case BN_IDENTITY: kernel.activation = .identity
        case BN_RELU:
            kernel.activation = .clip
            kernel.low = 0
            kernel.high = .infinity
        case BN_LEAKY_RELU: kernel.activation = .leaky
        case BN_CLIP: kernel.activation = .clip
        case BN_HARD_SWISH: kernel.activation = .hardSwish
        case BN_SILU: kernel.activation = .silu
        default:
            throw Failure(
                BN_ERROR_OPTION, "epilogue->activation", .integer(Int(given.activation.rawValue)),
                expected: "a bn_activation, from BN_IDENTITY (0) to BN_SILU (5)")
        }
        kernel.from_output = try flag(given.from_output, "epilogue->from_output") ? 1 : 0
        z = given.z
        dz = given.dz
        zStride = given.z_stride
        dzStride = given.dz_stride
        mask = given.mask
        if mask != nil && !kernel.activation.hasGradientOfBits {
            throw Failure(
                BN_ERROR_OPTION, "epilogue->mask", .set,
                expected: "NULL: the gradient of BN_HARD_SWISH and BN_SILU is more than a bit")
        }
        if kernel.from_output == 0 { return }
        if !kernel.activation.isInvertible(kernel.slope) {
            throw Failure(
                BN_ERROR_OPTION, "epilogue->activation", .integer(Int(given.activation.rawValue)),
                expected: "one that can be undone from_output: BN_IDENTITY, or BN_LEAKY_RELU with a slope above 0")
        }
        if z != nil {
            throw Failure(
                BN_ERROR_OPTION, "epilogue->z", .set, expected: "NULL beside from_output")
        }
    }

    /// Beside tensors of a shape and a type.
    func check(_ geometry: Geometry) throws(Failure) {
        _ = try geometry.stride(zStride, "epilogue->z_stride")
        _ = try geometry.stride(dzStride, "epilogue->dz_stride")
        if kernel.activation != .leaky || kernel.slope == 0 { return }
        let isFloat32 = geometry.number == .float32
        if isFloat32 ? Float(kernel.slope).isNormal : kernel.slope.isNormal { return }
        throw Failure(
            BN_ERROR_OPTION, "epilogue->slope", .real(kernel.slope),
            expected: isFloat32
                ? "0, or 1.2e-38 to 3.4e38: these tensors are computed in float32" : "0, or 2.3e-308 and more")
    }

    /// True if the activation's argument has to be known of each element.
    var needsArgument: Bool { kernel.activation != .identity && mask == nil && kernel.from_output == 0 }

    /// Between which values of y, an element of this type, its bit is 1: bounds as y has them.
    func passing(_ element: kernel_element) -> kernel_epilogue {
        var passing = kernel
        passing.low = element.rounded(kernel.low)
        passing.high = element.rounded(kernel.high)
        if kernel.activation != .clip {
            passing.low = kernel.activation == .leaky ? 0 : -.infinity
            passing.high = .infinity
        }
        return passing
    }
}

extension kernel_activation {
    /// True if a bit for each element tells the gradient.
    fileprivate var hasGradientOfBits: Bool {
        switch self {
        case .identity, .clip, .leaky: true
        case .hardSwish, .silu: false
        }
    }

    /// True if y tells u.
    fileprivate func isInvertible(_ slope: Double) -> Bool {
        switch self {
        case .identity: true
        case .leaky: slope != 0
        case .clip, .hardSwish, .silu: false
        }
    }
}
