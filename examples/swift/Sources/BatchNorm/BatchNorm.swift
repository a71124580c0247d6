// SPDX-License-Identifier: Apache-2.0
import CBatchNorm

/// The part of a forward call that `backward` needs: its shape, options, gamma and beta as they were, what x was
/// normalized with, and whether that was of the batch; the residual, unless there is a mask. Only a forward call makes
/// one.
public struct Saved<T: Element>: Sendable {
    fileprivate let form: Form
    fileprivate let options: Options
    fileprivate let gamma: [T.Parameter]?
    fileprivate let beta: [T.Parameter]?
    fileprivate let weights: [T.Parameter]?
    fileprivate let residual: [T]?
    /// A bit for each element that tells if the gradient passes, if `saveMask` was set.
    public let mask: [UInt8]?
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
    _ layout: some Layout, x: [T], gamma: [T.Parameter]? = nil, beta: [T.Parameter]? = nil,
    runningMean: inout [T.Parameter], runningVar: inout [T.Parameter], y: inout [T], residual: [T]? = nil,
    weights: [T.Parameter]? = nil, options: Options = Options()
) throws(BatchNormError) -> Saved<T> {
    let inputs = Inputs(form: layout.form, x: x, gamma: gamma, beta: beta, residual: residual, weights: weights)
    let counts = (runningMean.count, runningVar.count, y.count)
    return try forward(inputs, counts, options, frozen: false) { shape, options, mean, invstd in
        bn_forward_training(
            shape, T.dtype.value, x, gamma, beta, &runningMean, &runningVar, &y, mean, invstd, options)
    }
}

/// Like `forwardTraining`, but normalizes with the running statistics, which stay as they are, and are constants to the
/// gradient.
@discardableResult
public func forwardInference<T: Element>(
    _ layout: some Layout, x: [T], gamma: [T.Parameter]? = nil, beta: [T.Parameter]? = nil,
    runningMean: [T.Parameter], runningVar: [T.Parameter], y: inout [T], residual: [T]? = nil,
    weights: [T.Parameter]? = nil, options: Options = Options()
) throws(BatchNormError) -> Saved<T> {
    let inputs = Inputs(form: layout.form, x: x, gamma: gamma, beta: beta, residual: residual, weights: weights)
    let counts = (runningMean.count, runningVar.count, y.count)
    return try forward(inputs, counts, options, frozen: true) { shape, options, mean, invstd in
        bn_forward_inference(shape, T.dtype.value, x, gamma, beta, runningMean, runningVar, &y, mean, invstd, options)
    }
}

private struct Inputs<T: Element> {
    let form: Form
    let x: [T]
    let gamma, beta: [T.Parameter]?
    let residual: [T]?
    let weights: [T.Parameter]?
}

private func forward<T: Element>(
    _ inputs: Inputs<T>, _ counts: (runningMean: Int, runningVar: Int, y: Int), _ options: Options, frozen: Bool,
    _ function: (
        UnsafePointer<bn_shape>, UnsafePointer<bn_options>, UnsafeMutablePointer<Double>, UnsafeMutablePointer<Double>
    ) -> bn_status
) throws(BatchNormError) -> Saved<T> {
    let call = try Call(inputs.form, options, frozen: false, isBackward: false)
    let (extents, groups) = (call.extents, options.groups)
    try extents.check("x", inputs.x.count, at: 0)
    try extents.check("y", counts.y, at: 1)
    try extents.check("residual", inputs.residual?.count, at: 3)
    try extents.checkRow("gamma", inputs.gamma?.count, of: groups, .parameters)
    try extents.checkRow("beta", inputs.beta?.count, of: groups, .parameters)
    try extents.checkRow("runningMean", counts.runningMean, of: groups, .running)
    try extents.checkRow("runningVar", counts.runningVar, of: groups, .running)
    try call.checkWeights(inputs.weights?.count)
    var mean = [Double](repeating: 0, count: extents.rows(of: groups, .statistics))
    var invstd = mean
    // As many elements as x has at least, which is checked.
    let elements = extents.shape.outer * extents.shape.channels * extents.shape.inner
    var mask = [UInt8](repeating: 0, count: options.saveMask ? (elements + 7) / 8 : 0)
    try mask.withUnsafeMutableBufferPointer { (mask) throws(BatchNormError) in
        let kept = options.saveMask ? mask.baseAddress : nil
        try call.make(z: inputs.residual, dz: nil, mask: kept, weights: inputs.weights, index: groups?.index) {
            function($0, $1, &mean, &invstd)
        }
    }
    return Saved(
        form: inputs.form, options: options, gamma: inputs.gamma, beta: inputs.beta, weights: inputs.weights,
        residual: options.saveMask ? nil : inputs.residual, mask: options.saveMask ? mask : nil, mean: mean,
        invstd: invstd, frozen: frozen)
}

/// The gradients with respect to x, gamma and beta of a loss whose gradient with respect to y is `dy`. `x` is that of
/// the forward call that gave `saved`.
public func backward<T: Element>(
    dy: [T], x: [T], saved: Saved<T>, dx: inout [T], dgamma: inout [T.Parameter], dbeta: inout [T.Parameter]
) throws(BatchNormError) {
    try backward(dy, x, saved, &dx, nil, nil, &dgamma, &dbeta)
}

/// The same, and the gradient with respect to the residual.
public func backward<T: Element>(
    dy: [T], x: [T], saved: Saved<T>, dx: inout [T], dz: inout [T], dgamma: inout [T.Parameter],
    dbeta: inout [T.Parameter]
) throws(BatchNormError) {
    let count = dz.count
    try dz.withUnsafeMutableBufferPointer { (dz) throws(BatchNormError) in
        try backward(dy, x, saved, &dx, UnsafeMutableRawPointer(dz.baseAddress), count, &dgamma, &dbeta)
    }
}

private func backward<T: Element>(
    _ dy: [T], _ x: [T], _ saved: Saved<T>, _ dx: inout [T], _ dz: UnsafeMutableRawPointer?, _ dzCount: Int?,
    _ dgamma: inout [T.Parameter], _ dbeta: inout [T.Parameter]
) throws(BatchNormError) {
    let call = try Call(saved.form, saved.options, frozen: saved.frozen, isBackward: true)
    let (extents, groups) = (call.extents, saved.options.groups)
    try extents.check("dy", dy.count, at: 1)
    try extents.check("x", x.count, at: 0)
    try extents.check("dx", dx.count, at: 2)
    try extents.check("dz", dzCount, at: 4)
    try extents.checkRow("dgamma", dgamma.count, of: groups, .parameters)
    try extents.checkRow("dbeta", dbeta.count, of: groups, .parameters)
    // The library reads the mask and does not write to it.
    var mask = saved.mask ?? []
    try mask.withUnsafeMutableBufferPointer { (mask) throws(BatchNormError) in
        let kept = saved.mask == nil ? nil : mask.baseAddress
        try call.make(z: saved.residual, dz: dz, mask: kept, weights: saved.weights, index: groups?.index) {
            bn_backward(
                $0, T.dtype.value, dy, x, saved.gamma, saved.beta, saved.mean, saved.invstd, &dx, &dgamma, &dbeta, $1)
        }
    }
}

/// The number of values, the mean, and the sum of squared deviations from it, per channel.
public func moments<T: Element>(
    _ layout: some Layout, x: [T], count: inout [Double], mean: inout [Double], m2: inout [Double]
) throws(BatchNormError) {
    let extents = try Extents(layout.form, isBackward: false, isGrouped: false)
    try extents.check("x", x.count, at: 0)
    for (name, found) in [("count", count.count), ("mean", mean.count), ("m2", m2.count)] {
        try extents.checkRow(name, found, of: nil, .statistics)
    }
    var shape = bn_shape(extents.shape, extents.strides)
    try call { bn_moments(&shape, T.dtype.value, x, &count, &mean, &m2, 0, nil) }
}

/// The number of threads that later calls may use: 1 to 1024, or 0 for the default.
public func setNumThreads(_ threads: Int32) throws(BatchNormError) {
    try call { bn_set_num_threads(threads) }
}

/// major * 10000 + minor * 100 + patch of the library that was loaded.
public func version() -> Int {
    Int(bn_version())
}
