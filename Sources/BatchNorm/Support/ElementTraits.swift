// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// All that the engine knows of an element type, in one place. A switch that forgets one does not compile.
extension kernel_element {
    init(_ dtype: bn_dtype, _ name: StaticString) throws(Failure) {
        guard let element = kernel_element(dtype) else {
            throw Failure(
                BN_ERROR_DTYPE, name, .integer(Int(dtype.rawValue)),
                expected: "BN_FLOAT32 (1), BN_FLOAT64 (2), BN_FLOAT16 (3) or BN_BFLOAT16 (4)")
        }
        self = element
    }

    init?(_ dtype: bn_dtype) {
        switch dtype {
        case BN_FLOAT32: self = .float32
        case BN_FLOAT64: self = .float64
        case BN_FLOAT16: self = .float16
        case BN_BFLOAT16: self = .bfloat16
        default: return nil
        }
    }

    var dtype: bn_dtype {
        switch self {
        case .float32: BN_FLOAT32
        case .float64: BN_FLOAT64
        case .float16: BN_FLOAT16
        case .bfloat16: BN_BFLOAT16
        }
    }

    /// Bytes of an element.
    var size: Int {
        switch self {
        case .float64: 8
        case .float32: 4
        case .float16, .bfloat16: 2
        }
    }

    /// The type that its values are computed with, and that its parameters have unless the options say otherwise.
    var number: kernel_element {
        switch self {
        case .float64: .float64
        case .float32, .float16, .bfloat16: .float32
        }
    }

    /// −0 in every element of eight bytes.
    var negativeZeros: UInt64 {
        switch self {
        case .float64: 0x8000_0000_0000_0000
        case .float32: 0x8000_0000_8000_0000
        case .float16, .bfloat16: 0x8000_8000_8000_8000
        }
    }

    /// The largest number that is computed with below a bound; infinity for an infinite one.
    func before(_ bound: Double) -> Double {
        if bound == .infinity { return bound }
        return number == .float64 ? bound.nextDown : Double(Float(bound).nextDown)
    }
}
