// SPDX-License-Identifier: Apache-2.0

/// The map of one channel, in double:
///
///     y  = (x − mean) · scale + shift
///     dx = ((dy − dyMean) − (x − mean) · slope) · scale
struct ChannelMap {
    /// The mean is mean + meanTail: the second term is what the first rounded away.
    var mean = 0.0
    var meanTail = 0.0
    var scale: Double
    var shift = 0.0
    var dyMean = 0.0
    var slope = 0.0
    /// The factor that multiplies dy, and the activation's argument, (x − mean) · scale + shift: of maps with an epilogue.
    var gain = 1.0
    var argument: (scale: Double, shift: Double)?
}

/// The map of one channel that combines three tensors:
///
///     (dy − dyMean) · scale + (z − zMean) · gain + x_hat · slope + shift        x_hat = (x − mean) · inverseStd
struct ThreeTensorMap {
    var dyMean = 0.0
    var scale: Double
    var zMean = 0.0
    var gain = 0.0
    var mean: Double
    var inverseStd: Double
    var slope = 0.0
    var shift = 0.0
}
