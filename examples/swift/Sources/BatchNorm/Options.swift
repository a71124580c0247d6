// SPDX-License-Identifier: Apache-2.0

public struct Options: Hashable, Sendable {
    /// Added to the variance.
    public var eps = 1e-5
    /// The weight of the new batch in the running statistics.
    public var momentum = 0.1
    /// The running variance takes the sum of squares / M in place of / (M - 1).
    public var biasedRunningVar = false
    public var activation = Activation.identity
    /// Keeps a bit for each element in place of the residual. Not for `hardSwish` and `silu`.
    public var saveMask = false
    public var groups: Groups?
    /// y at positions of weight 0.
    public var masked = Masked.normalize

    public init() {}
}

/// y = activation(u), where u = gamma * x_hat + beta + residual.
public enum Activation: Hashable, Sendable {
    case identity
    case relu
    case leakyRelu(slope: Double = 0.01)
    /// Between two limits; ReLU6 by default.
    case clip(low: Double = 0, high: Double = 6)
    case hardSwish
    case silu
}

/// y at positions of weight 0: as anywhere, 0, or x.
public enum Masked: UInt32, Sendable {
    case normalize = 0
    case zero = 1
    case keep = 2
}

/// Samples in groups: ghost batches, segments, or a class for each sample.
public struct Groups: Hashable, Sendable {
    public var count: Int
    /// The number of samples; nil takes each outer index, or each index of the first axis, for one.
    public var samples: Int?
    /// The group of each sample; nil for groups of equal size.
    public var index: [Int32]?
    public var perGroup: PerGroup
    /// Without index: sample i is in group i % count.
    public var interleaved = false
    /// The running statistics move once, to the average of the groups'.
    public var averaged = false

    public init(_ count: Int, index: [Int32]? = nil, perGroup: PerGroup = .statistics) {
        self.count = count
        self.index = index
        self.perGroup = perGroup
    }
}

/// The arrays that have a row for each group; parameters are gamma, beta and their gradients.
public struct PerGroup: OptionSet, Hashable, Sendable {
    public let rawValue: Int32

    public init(rawValue: Int32) {
        self.rawValue = rawValue
    }

    public static let statistics = PerGroup(rawValue: 1)
    public static let running = PerGroup(rawValue: 2)
    public static let parameters = PerGroup(rawValue: 4)
}
