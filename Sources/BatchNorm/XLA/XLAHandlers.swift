// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// Functions that XLA calls for batchnorm.jax. See CKernels' xla.h for their operands and results. All that looks into a call
/// is compiled for size: it takes no time beside what XLA does for a call, and the library is to be small.

@_cdecl("batchnorm_xla_forward") @_optimize(size)
public func xlaForward(call: UnsafePointer<xla_call>?) -> UnsafeMutableRawPointer? {
    XLACall.serve(call, "tcc>tscc") { call in
        call.clear(5)
        call.clear(6)
        return exportForwardTraining(
            shape: &call.shape, dtype: call.dtype, x: call[0], gamma: call[1], beta: call[2], runningMean: call[5],
            runningVar: call[6], y: call[3], savedMean: call.doubles(4), savedInvstd: call.doubles(4, row: 1),
            options: &call.options)
    }
}

@_cdecl("batchnorm_xla_inference") @_optimize(size)
public func xlaInference(call: UnsafePointer<xla_call>?) -> UnsafeMutableRawPointer? {
    XLACall.serve(call, "tcccc>t") { call in
        exportForwardInference(
            shape: &call.shape, dtype: call.dtype, x: call[0], gamma: call[1], beta: call[2], runningMean: call[3],
            runningVar: call[4], y: call[5], savedMean: nil, savedInvstd: nil, options: &call.options)
    }
}

@_cdecl("batchnorm_xla_tangent") @_optimize(size)
public func xlaTangent(call: UnsafePointer<xla_call>?) -> UnsafeMutableRawPointer? {
    XLACall.serve(call, "?t?c?ctcs>t") { call in
        exportJvp(
            shape: &call.shape, dtype: call.dtype, x: call[3], xTangent: call[0], gamma: call[4],
            gammaTangent: call[1], betaTangent: call[2], savedMean: call.doubles(5),
            savedInvstd: call.doubles(5, row: 1), yTangent: call[6], options: &call.options)
    }
}

@_cdecl("batchnorm_xla_backward") @_optimize(size)
public func xlaBackward(call: UnsafePointer<xla_call>?) -> UnsafeMutableRawPointer? {
    XLACall.serve(call, "ttcs>?t?c?c") { call in
        exportBackward(
            shape: &call.shape, dtype: call.dtype, dy: call[0], x: call[1], gamma: call[2], beta: nil,
            savedMean: call.doubles(3), savedInvstd: call.doubles(3, row: 1), dx: call[4], dgamma: call[5],
            dbeta: call[6], options: &call.options)
    }
}

@_cdecl("batchnorm_xla_double_backward") @_optimize(size)
public func xlaDoubleBackward(call: UnsafePointer<xla_call>?) -> UnsafeMutableRawPointer? {
    XLACall.serve(call, "?t?cttcs>tc") { call in
        exportDoubleBackward(
            shape: &call.shape, dtype: call.dtype, gradDx: call[0], gradDgamma: call[1], gradDbeta: nil, dy: call[2],
            x: call[3], gamma: call[4], savedMean: call.doubles(5), savedInvstd: call.doubles(5, row: 1), gradDy: nil,
            gradX: call[6], gradGamma: call[7], options: &call.options)
    }
}
