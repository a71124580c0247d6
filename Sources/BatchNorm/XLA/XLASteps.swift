// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The steps of a batch on several devices, between which JAX gathers moments and sums. Rows are merged in their order, so
/// that the bits depend on how the batch is cut into parts, and not on which device has which of them.

@_cdecl("batchnorm_xla_moments") @_optimize(size)
public func xlaMoments(call: UnsafePointer<xla_call>?) -> UnsafeMutableRawPointer? {
    XLACall.serve(call, "t>m") { call in
        var part = call.part
        for row in 0..<call.parts {
            let status = exportMoments(
                shape: &part.shape, dtype: call.dtype, x: call[0]! + row * part.bytes, count: call.doubles(1, row: row),
                mean: call.doubles(1, row: call.parts + row), m2: call.doubles(1, row: 2 * call.parts + row),
                stride: 0, options: nil)
            if status != BN_OK { return status }
        }
        return BN_OK
    }
}

@_cdecl("batchnorm_xla_normalize") @_optimize(size)
public func xlaNormalize(call: UnsafePointer<xla_call>?) -> UnsafeMutableRawPointer? {
    XLACall.serve(call, "tccM>tscck") { call in
        let (count, mean, m2) = (call.doubles(8), call.doubles(8, row: 1), call.doubles(8, row: 2))
        let (savedMean, savedInvstd) = (call.doubles(5), call.doubles(5, row: 1))
        var status = exportMergeMoments(
            parts: call.allParts, channels: call.channels, counts: call.doubles(3),
            means: call.doubles(3, row: call.allParts), m2s: call.doubles(3, row: 2 * call.allParts), stride: 0,
            count: count, mean: mean, m2: m2)
        if status != BN_OK { return status }
        status = exportInverseStd(
            channels: call.channels, count: count, m2: m2, invstd: savedInvstd, options: &call.options)
        if status != BN_OK { return status }
        savedMean.update(from: mean, count: call.channels)
        call.clear(6)
        call.clear(7)
        status = exportUpdateRunning(
            channels: call.channels, dtype: call.element.number.dtype, count: count, mean: mean, m2: m2,
            runningMean: call[6], runningVar: call[7], options: &call.options)
        if status != BN_OK { return status }
        return exportNormalize(
            shape: &call.shape, dtype: call.dtype, x: call[0], gamma: call[1], beta: call[2], mean: savedMean,
            invstd: savedInvstd, y: call[4], options: &call.options)
    }
}

@_cdecl("batchnorm_xla_reduce") @_optimize(size)
public func xlaReduce(call: UnsafePointer<xla_call>?) -> UnsafeMutableRawPointer? {
    XLACall.serve(call, "tts>ucc") { call in
        var part = call.part
        for row in 0..<call.parts {
            let status = exportBackwardReduce(
                shape: &part.shape, dtype: call.dtype, dy: call[0]! + row * part.bytes, x: call[1]! + row * part.bytes,
                mean: call.doubles(2), invstd: call.doubles(2, row: 1), sumDy: call.doubles(3, row: row),
                sumDyXHat: call.doubles(3, row: call.parts + row), stride: 0, options: nil)
            if status != BN_OK { return status }
        }
        let (dgamma, dbeta) = (Elements(call[4]!, call.element.number), Elements(call[5]!, call.element.number))
        for channel in 0..<call.channels {
            dbeta[channel] = call.sum(3, 0, of: call.parts, channel)
            dgamma[channel] = call.sum(3, 1, of: call.parts, channel)
        }
        return BN_OK
    }
}

@_cdecl("batchnorm_xla_apply") @_optimize(size)
public func xlaApply(call: UnsafePointer<xla_call>?) -> UnsafeMutableRawPointer? {
    XLACall.serve(call, "ttcskU>ts") { call in
        let totals = call.doubles(7)
        for sum in 0..<2 * call.channels {
            totals[sum] = call.sum(5, sum / call.channels, of: call.allParts, sum % call.channels)
        }
        if call.shape.outer == 0 || call.shape.inner == 0 { return BN_OK }
        return exportBackwardApply(
            shape: &call.shape, dtype: call.dtype, dy: call[0], x: call[1], gamma: call[2],
            mean: call.doubles(3), invstd: call.doubles(3, row: 1), count: call.doubles(4), sumDy: totals,
            sumDyXHat: totals + call.channels, dx: call[6], options: &call.options)
    }
}

extension XLACall {
    /// A sum of all parts, in their order.
    @_optimize(size) fileprivate func sum(_ place: Int, _ kind: Int, of parts: Int, _ channel: Int) -> Double {
        var sum = 0.0
        for part in 0..<parts { sum += doubles(place, row: kind * parts + part)[channel] }
        return sum
    }

    /// The extents of a part of x, and how far it is from one to the next.
    fileprivate var part: (shape: bn_shape, bytes: Int) {
        var shape = shape
        if channels == 1 { shape.inner /= parts } else { shape.outer /= parts }
        return (shape, shape.outer * shape.channels * shape.inner * element.size)
    }
}
