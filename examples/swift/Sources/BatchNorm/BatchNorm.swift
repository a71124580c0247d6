// SPDX-License-Identifier: Apache-2.0
import CBatchNorm

/// Outer x channels x inner, dense, the inner index running fastest: NCHW is (N, C, H * W), NHWC is (N * H * W, C, 1).
public struct Shape: Hashable, Sendable {
    public var outer: Int
    public var channels: Int
    public var inner: Int

    public init(outer: Int, channels: Int, inner: Int) {
        self.outer = outer
        self.channels = channels
        self.inner = inner
    }
}

public struct Options: Hashable, Sendable {
    /// Added to the variance.
    public var eps = 1e-5
    /// The weight of the new batch in the running statistics.
    public var momentum = 0.1
    /// The running variance takes the sum of squares / M in place of / (M - 1).
    public var biasedRunningVar = false

    public init() {}
}

public enum BatchNormError: Error, Hashable, CustomStringConvertible {
    /// An array has another number of elements than the shape says: C would go past its end. -1 is expected of a shape
    /// that no array can have.
    case length(argument: String, actual: Int, expected: Int)
    /// The library's own status, and its sentence.
    case library(status: UInt32, message: String)
    /// The library that was loaded is not one that this package can use.
    case version(Int)

    public var description: String {
        switch self {
        case .length(let argument, _, -1):
            "the shape of \(argument) is negative, or beyond what can be addressed"
        case .length(let argument, let actual, let expected):
            "\(argument) has \(actual) elements, expected \(expected)"
        case .library(_, let message):
            message
        case .version(let version):
            "libbatchnorm 2.0 or a later 2.x is needed, but libbatchnorm.so.2 is "
                + "\(version / 10000).\(version / 100 % 100).\(version % 100)"
        }
    }
}

/// `Float` and `Double`, and no other type: it would be read as one of them.
public protocol Element: BitwiseCopyable, Sendable {
    static var dtype: DType { get }
}

/// A `bn_dtype` that only this module can make.
public struct DType: Sendable {
    let value: bn_dtype
}

extension Float: Element {
    public static var dtype: DType { DType(value: BN_FLOAT32) }
}

extension Double: Element {
    public static var dtype: DType { DType(value: BN_FLOAT64) }
}

/// The part of a forward call that `backward` needs: its shape, gamma and beta as they were, what x was normalized with,
/// and whether that was of the batch. Only a forward call makes one.
public struct Saved<T: Element>: Sendable {
    fileprivate let shape: Shape
    fileprivate let gamma: [T]?
    fileprivate let beta: [T]?
    /// The means that x was normalized with.
    public let mean: [Double]
    /// The factors that x was normalized with: 1 / sqrt(variance + eps).
    public let invstd: [Double]
    fileprivate let frozen: Bool
}

/// Normalizes `x` into `y` with the statistics of the batch, and moves the running ones. Returns what `backward` needs.
///
/// Like all functions here it reads and writes the arrays where they are. That no two of them overlap is Swift's law of
/// exclusivity.
@discardableResult
public func forwardTraining<T: Element>(
    _ shape: Shape, x: [T], gamma: [T]? = nil, beta: [T]? = nil, runningMean: inout [T], runningVar: inout [T],
    y: inout [T], options: Options = Options()
) throws(BatchNormError) -> Saved<T> {
    try shape.checkTensors(["x": x.count, "y": y.count])
    try shape.checkRows(["gamma": gamma?.count, "beta": beta?.count])
    try shape.checkRows(["runningMean": runningMean.count, "runningVar": runningVar.count])
    var (mean, invstd) = (shape.row, shape.row)
    var (sizes, options) = (bn_shape(shape), bn_options(options))
    try call {
        bn_forward_training(
            &sizes, T.dtype.value, x, gamma, beta, &runningMean, &runningVar, &y, &mean, &invstd, &options)
    }
    return Saved(shape: shape, gamma: gamma, beta: beta, mean: mean, invstd: invstd, frozen: false)
}

/// Like `forwardTraining`, but normalizes with the running statistics, which stay as they are, and are constants to the
/// gradient.
@discardableResult
public func forwardInference<T: Element>(
    _ shape: Shape, x: [T], gamma: [T]? = nil, beta: [T]? = nil, runningMean: [T], runningVar: [T],
    y: inout [T], options: Options = Options()
) throws(BatchNormError) -> Saved<T> {
    try shape.checkTensors(["x": x.count, "y": y.count])
    try shape.checkRows(["gamma": gamma?.count, "beta": beta?.count])
    try shape.checkRows(["runningMean": runningMean.count, "runningVar": runningVar.count])
    var (mean, invstd) = (shape.row, shape.row)
    var (sizes, options) = (bn_shape(shape), bn_options(options))
    try call {
        bn_forward_inference(
            &sizes, T.dtype.value, x, gamma, beta, runningMean, runningVar, &y, &mean, &invstd, &options)
    }
    return Saved(shape: shape, gamma: gamma, beta: beta, mean: mean, invstd: invstd, frozen: true)
}

/// The gradients with respect to x, gamma and beta of a loss whose gradient with respect to y is `dy`. `x` is that of
/// the forward call that gave `saved`.
public func backward<T: Element>(
    dy: [T], x: [T], saved: Saved<T>, dx: inout [T], dgamma: inout [T], dbeta: inout [T]
) throws(BatchNormError) {
    try saved.shape.checkTensors(["dy": dy.count, "x": x.count, "dx": dx.count])
    try saved.shape.checkRows(["dgamma": dgamma.count, "dbeta": dbeta.count])
    var (sizes, options) = (bn_shape(saved.shape), bn_options(Options()))
    options.frozen = saved.frozen ? 1 : 0
    try call {
        bn_backward(
            &sizes, T.dtype.value, dy, x, saved.gamma, saved.beta, saved.mean, saved.invstd, &dx, &dgamma, &dbeta,
            &options)
    }
}

/// The number of values, the mean, and the sum of squared deviations from it, per channel.
public func moments<T: Element>(
    _ shape: Shape, x: [T], count: inout [Double], mean: inout [Double], m2: inout [Double]
) throws(BatchNormError) {
    try shape.checkTensors(["x": x.count])
    try shape.checkRows(["count": count.count, "mean": mean.count, "m2": m2.count])
    var shape = bn_shape(shape)
    try call { bn_moments(&shape, T.dtype.value, x, &count, &mean, &m2) }
}

/// The number of threads that later calls may use: 1 to 1024, or 0 for the default.
public func setNumThreads(_ threads: Int32) throws(BatchNormError) {
    try call { bn_set_num_threads(threads) }
}

/// major * 10000 + minor * 100 + patch of the library that was loaded.
public func version() -> Int {
    Int(bn_version())
}

/// The error's sentence is of this thread, and good until its next failure: it is copied at once.
private func call(_ function: () -> bn_status) throws(BatchNormError) {
    let version = version()
    guard version / 10000 == 2, version >= 20000 else { throw .version(version) }
    let status = function()
    guard status == BN_OK else {
        throw .library(status: status.rawValue, message: String(cString: bn_last_error()))
    }
}

extension Shape {
    fileprivate func checkTensors(_ counts: KeyValuePairs<String, Int>) throws(BatchNormError) {
        let (slice, overflow) = channels.multipliedReportingOverflow(by: inner)
        let (size, further) = outer.multipliedReportingOverflow(by: slice)
        // No array has a negative number of elements.
        let expected = overflow || further || min(outer, channels, inner) < 0 ? -1 : size
        for (argument, actual) in counts where actual != expected {
            throw .length(argument: argument, actual: actual, expected: expected)
        }
    }

    /// Room for a number of each channel. Arrays that were checked have a number of channels that is one.
    fileprivate var row: [Double] { Array(repeating: 0, count: channels) }

    /// nil is an argument that is not there.
    fileprivate func checkRows(_ counts: KeyValuePairs<String, Int?>) throws(BatchNormError) {
        for (argument, actual) in counts {
            guard let actual, actual != channels else { continue }
            throw .length(argument: argument, actual: actual, expected: channels)
        }
    }
}

extension bn_shape {
    fileprivate init(_ shape: Shape) {
        self.init()  // all zero
        struct_size = MemoryLayout<bn_shape>.size
        outer = shape.outer
        channels = shape.channels
        inner = shape.inner
    }
}

extension bn_options {
    fileprivate init(_ options: Options) {
        self.init()
        struct_size = MemoryLayout<bn_options>.size
        eps = options.eps
        momentum = options.momentum
        biased_running_var = options.biasedRunningVar ? 1 : 0
    }
}
