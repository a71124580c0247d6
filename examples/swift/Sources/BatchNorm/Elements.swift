// SPDX-License-Identifier: Apache-2.0
import CBatchNorm

/// `Float`, `Double`, `Float16` and `BFloat16`, and no other type: it would be read as one of them.
public protocol Element: BitwiseCopyable, Sendable {
    /// That of gamma, beta, the running statistics and weights.
    associatedtype Parameter: Element
    static var dtype: DType { get }
}

/// A `bn_dtype` that only this module can make.
public struct DType: Sendable {
    let value: bn_dtype
}

extension Float: Element {
    public typealias Parameter = Float
    public static var dtype: DType { DType(value: BN_FLOAT32) }
}

extension Double: Element {
    public typealias Parameter = Double
    public static var dtype: DType { DType(value: BN_FLOAT64) }
}

#if !(os(macOS) && arch(x86_64))
    extension Float16: Element {
        public typealias Parameter = Float
        public static var dtype: DType { DType(value: BN_FLOAT16) }
    }
#endif

/// The bits of a bfloat16, the upper half of a `Float`.
public struct BFloat16: Element, Hashable {
    public typealias Parameter = Float
    public static var dtype: DType { DType(value: BN_BFLOAT16) }
    public var bits: UInt16

    public init(bits: UInt16) {
        self.bits = bits
    }
}
