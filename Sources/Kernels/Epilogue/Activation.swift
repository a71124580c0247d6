// SPDX-License-Identifier: Apache-2.0
import CKernels

/// The two kinds of epilogue that loops are compiled for. Clips, among them ReLU, are so common and so short that they have loops
/// without all the rest: no weights, no bits, no gain, x at hand, and statistics that the gradient goes through.
protocol EpilogueKind {
    static var isClip: Bool { get }
}

enum Clips: EpilogueKind {
    static var isClip: Bool { true }
}

enum Everything: EpilogueKind {
    static var isClip: Bool { false }
}

/// y = activation(u), and its gradient. NaN stays NaN.
struct Activation<T: Arithmetic, K: EpilogueKind> {
    private let kind: kernel_activation
    private let slope: SIMD16<T>
    private let clip: Clip<T>

    @inline(__always)
    init(_ epilogue: kernel_epilogue) {
        kind = epilogue.activation
        slope = SIMD16(repeating: T(epilogue.slope))
        clip = Clip(epilogue)
    }

    @inline(__always)
    func value(_ u: SIMD16<T>) -> SIMD16<T> {
        if K.isClip || kind == .clip { return clip.value(u) }
        if kind == .leaky { return T.above(u, .zero, u, u * slope) }
        return kind == .identity ? u : u * smooth(u, factor, putFactor)
    }

    /// dy · activation'(u); at a kink, the gradient that does not pass.
    @inline(__always)
    func gradient(_ dy: SIMD16<T>, _ u: SIMD16<T>) -> SIMD16<T> {
        if K.isClip || kind == .clip { return clip.gradient(dy, u) }
        if kind == .leaky { return T.above(u, .zero, dy, dy * slope) }
        return kind == .identity ? dy : dy * smooth(u, derivative, putDerivative)
    }

    /// In line where a vector is one register: 1.2 times as fast on the whole call. Elsewhere by way of memory, as an exponential
    /// is longer than all the rest of a loop, and vectors that are given in pieces lose their upper parts on the way back.
    @inline(__always)
    private func smooth(
        _ u: SIMD16<T>, _ function: (SIMD16<T>, kernel_activation) -> SIMD16<T>,
        _ put: (UnsafeMutablePointer<SIMD16<T>>, kernel_activation) -> Void
    ) -> SIMD16<T> {
        if hasVectorRegisters && T.self == Float.self { return function(u, kind) }
        var value = u
        withUnsafeMutablePointer(to: &value) { put($0, kind) }
        return value
    }

    /// The same where it is known which gradients pass.
    @inline(__always)
    func gradient(_ dy: SIMD16<T>, passing bits: UInt32) -> SIMD16<T> {
        kind == .identity ? dy : T.pick(bits, dy, kind == .leaky ? dy * slope : .zero)
    }

    /// u, of the output: for a slope above 0, and no activation at all.
    @inline(__always)
    func inverse(_ y: SIMD16<T>) -> SIMD16<T> {
        kind == .leaky ? T.above(y, .zero, y, y / slope) : y
    }
}

/// The activations that are u times something smooth: that factor.
@inline(__always)
private func factor<T: Arithmetic>(_ u: SIMD16<T>, _ kind: kernel_activation) -> SIMD16<T> {
    if kind == .silu { return sigmoid(u) }
    // Hard-swish.
    let three = SIMD16<T>(repeating: 3)
    let raised = T.above(u, -three, u + three, .zero)
    return T.above(u, three, SIMD16(repeating: 1), raised / (three + three))
}

/// Their derivative.
@inline(__always)
private func derivative<T: Arithmetic>(_ u: SIMD16<T>, _ kind: kernel_activation) -> SIMD16<T> {
    if kind == .silu {
        let sigmoid = sigmoid(u)
        return sigmoid * (u * (1 - sigmoid) + 1)
    }
    // Hard-swish.
    let three = SIMD16<T>(repeating: 3)
    let between = u * T(1.0 / 3) + T(0.5)
    return T.above(u, -three, T.above(three, u, between, SIMD16(repeating: 1)), .zero)
}

@inline(never)
private func putFactor<T: Arithmetic>(_ place: UnsafeMutablePointer<SIMD16<T>>, _ kind: kernel_activation) {
    place.pointee = factor(place.pointee, kind)
}

@inline(never)
private func putDerivative<T: Arithmetic>(_ place: UnsafeMutablePointer<SIMD16<T>>, _ kind: kernel_activation) {
    place.pointee = derivative(place.pointee, kind)
}

/// 1 / (1 + e^−u), as e^u / (e^u + 1) below 0: nothing overflows.
@inline(__always)
private func sigmoid<T: Arithmetic>(_ u: SIMD16<T>) -> SIMD16<T> {
    let e = T.exponential(T.above(u, .zero, -u, u))
    return T.above(u, .zero, SIMD16(repeating: 1), e) / (e + 1)
}
