// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The C ABI: one function per prototype of batchnorm.h, in its order. `@_cdecl` does not look at the header; the list
/// at the end does, and does not compile where a type differs. Those that Python's built-ins or XLA's handlers call as
/// well are not inlined, so that they stand in the library once. The three calls of a layer are compiled for speed, as are all
/// loops; the others, whose own work is to check arguments, for size: they have 0.5 to 0.7 of the bytes.

@_cdecl("bn_forward_training") @inline(never)
public func exportForwardTraining(
    shape: UnsafePointer<bn_shape>?, dtype: bn_dtype, x: UnsafeRawPointer?, gamma: UnsafeRawPointer?,
    beta: UnsafeRawPointer?, runningMean: UnsafeMutableRawPointer?, runningVar: UnsafeMutableRawPointer?,
    y: UnsafeMutableRawPointer?, savedMean: UnsafeMutablePointer<Double>?, savedInvstd: UnsafeMutablePointer<Double>?,
    options: UnsafePointer<bn_options>?
) -> bn_status {
    Call.compute("bn_forward_training") { call throws(Failure) in
        try call.forwardTraining(
            Geometry(shape, dtype, call), x: x, gamma: gamma, beta: beta, runningMean: runningMean,
            runningVar: runningVar, y: y, savedMean: savedMean, savedInvstd: savedInvstd,
            options: Options(options, call))
    }
}

@_cdecl("bn_forward_inference") @inline(never)
public func exportForwardInference(
    shape: UnsafePointer<bn_shape>?, dtype: bn_dtype, x: UnsafeRawPointer?, gamma: UnsafeRawPointer?,
    beta: UnsafeRawPointer?, runningMean: UnsafeRawPointer?, runningVar: UnsafeRawPointer?, y: UnsafeMutableRawPointer?,
    savedMean: UnsafeMutablePointer<Double>?, savedInvstd: UnsafeMutablePointer<Double>?,
    options: UnsafePointer<bn_options>?
) -> bn_status {
    Call.compute("bn_forward_inference") { call throws(Failure) in
        try call.forwardInference(
            Geometry(shape, dtype, call), x: x, gamma: gamma, beta: beta, runningMean: runningMean,
            runningVar: runningVar, y: y, savedMean: savedMean, savedInvstd: savedInvstd,
            options: Options(options, call))
    }
}

@_cdecl("bn_backward") @inline(never)
public func exportBackward(
    shape: UnsafePointer<bn_shape>?, dtype: bn_dtype, dy: UnsafeRawPointer?, x: UnsafeRawPointer?,
    gamma: UnsafeRawPointer?, beta: UnsafeRawPointer?, savedMean: UnsafePointer<Double>?,
    savedInvstd: UnsafePointer<Double>?, dx: UnsafeMutableRawPointer?, dgamma: UnsafeMutableRawPointer?,
    dbeta: UnsafeMutableRawPointer?, options: UnsafePointer<bn_options>?
) -> bn_status {
    Call.compute("bn_backward") { call throws(Failure) in
        try call.backward(
            Geometry(shape, dtype, call), dy: dy, x: x, gamma: gamma, beta: beta, savedMean: savedMean,
            savedInvstd: savedInvstd, dx: dx, dgamma: dgamma, dbeta: dbeta, options: Options(options, call))
    }
}

@_cdecl("bn_moments") @_optimize(size) @inline(never)
public func exportMoments(
    shape: UnsafePointer<bn_shape>?, dtype: bn_dtype, x: UnsafeRawPointer?, count: UnsafeMutablePointer<Double>?,
    mean: UnsafeMutablePointer<Double>?, m2: UnsafeMutablePointer<Double>?, stride: Int,
    options: UnsafePointer<bn_options>?
) -> bn_status {
    Call.compute("bn_moments") { call throws(Failure) in
        try call.moments(
            Geometry(shape, dtype, call), x: x, count: count, mean: mean, m2: m2, stride: stride,
            options: Options(options, call))
    }
}

@_cdecl("bn_merge_moments") @_optimize(size) @inline(never)
public func exportMergeMoments(
    parts: Int, channels: Int, counts: UnsafePointer<Double>?, means: UnsafePointer<Double>?,
    m2s: UnsafePointer<Double>?, stride: Int, count: UnsafeMutablePointer<Double>?,
    mean: UnsafeMutablePointer<Double>?, m2: UnsafeMutablePointer<Double>?
) -> bn_status {
    Call.compute("bn_merge_moments") { call throws(Failure) in
        try call.mergeMoments(
            parts: parts, channels: channels, counts: counts, means: means, m2s: m2s, stride: stride, count: count,
            mean: mean, m2: m2)
    }
}

@_cdecl("bn_inverse_std") @_optimize(size) @inline(never)
public func exportInverseStd(
    channels: Int, count: UnsafePointer<Double>?, m2: UnsafePointer<Double>?, invstd: UnsafeMutablePointer<Double>?,
    options: UnsafePointer<bn_options>?
) -> bn_status {
    Call.compute("bn_inverse_std") { call throws(Failure) in
        try call.inverseStd(channels: channels, count: count, m2: m2, invstd: invstd, options: Options(options, call))
    }
}

@_cdecl("bn_normalize") @_optimize(size) @inline(never)
public func exportNormalize(
    shape: UnsafePointer<bn_shape>?, dtype: bn_dtype, x: UnsafeRawPointer?, gamma: UnsafeRawPointer?,
    beta: UnsafeRawPointer?, mean: UnsafePointer<Double>?, invstd: UnsafePointer<Double>?, y: UnsafeMutableRawPointer?,
    options: UnsafePointer<bn_options>?
) -> bn_status {
    Call.compute("bn_normalize") { call throws(Failure) in
        try call.normalize(
            Geometry(shape, dtype, call), x: x, gamma: gamma, beta: beta, mean: mean, invstd: invstd, y: y,
            options: Options(options, call))
    }
}

@_cdecl("bn_backward_reduce") @_optimize(size) @inline(never)
public func exportBackwardReduce(
    shape: UnsafePointer<bn_shape>?, dtype: bn_dtype, dy: UnsafeRawPointer?, x: UnsafeRawPointer?,
    mean: UnsafePointer<Double>?, invstd: UnsafePointer<Double>?, sumDy: UnsafeMutablePointer<Double>?,
    sumDyXHat: UnsafeMutablePointer<Double>?, stride: Int, options: UnsafePointer<bn_options>?
) -> bn_status {
    Call.compute("bn_backward_reduce") { call throws(Failure) in
        try call.backwardReduce(
            Geometry(shape, dtype, call), dy: dy, x: x, mean: mean, invstd: invstd, sumDy: sumDy, sumDyXHat: sumDyXHat,
            stride: stride, options: Options(options, call))
    }
}

@_cdecl("bn_backward_apply") @_optimize(size) @inline(never)
public func exportBackwardApply(
    shape: UnsafePointer<bn_shape>?, dtype: bn_dtype, dy: UnsafeRawPointer?, x: UnsafeRawPointer?,
    gamma: UnsafeRawPointer?, mean: UnsafePointer<Double>?, invstd: UnsafePointer<Double>?,
    count: UnsafePointer<Double>?,
    sumDy: UnsafePointer<Double>?, sumDyXHat: UnsafePointer<Double>?, dx: UnsafeMutableRawPointer?,
    options: UnsafePointer<bn_options>?
) -> bn_status {
    Call.compute("bn_backward_apply") { call throws(Failure) in
        try call.backwardApply(
            Geometry(shape, dtype, call), dy: dy, x: x, gamma: gamma, mean: mean, invstd: invstd, count: count,
            sumDy: sumDy, sumDyXHat: sumDyXHat, dx: dx, options: Options(options, call))
    }
}

@_cdecl("bn_update_running") @_optimize(size) @inline(never)
public func exportUpdateRunning(
    channels: Int, dtype: bn_dtype, count: UnsafePointer<Double>?, mean: UnsafePointer<Double>?,
    m2: UnsafePointer<Double>?, runningMean: UnsafeMutableRawPointer?, runningVar: UnsafeMutableRawPointer?,
    options: UnsafePointer<bn_options>?
) -> bn_status {
    Call.compute("bn_update_running") { call throws(Failure) in
        try call.updateRunning(
            channels: channels, element: kernel_element(dtype, "dtype"), count: count, mean: mean, m2: m2,
            runningMean: runningMean,
            runningVar: runningVar, options: Options(options, call))
    }
}

@_cdecl("bn_length_weights") @_optimize(size)
public func exportLengthWeights(
    samples: Int, positions: Int, lengths: UnsafePointer<Int>?, dtype: bn_dtype, weights: UnsafeMutableRawPointer?
) -> bn_status {
    Call.serve("bn_length_weights") { call throws(Failure) in
        try call.lengthWeights(
            samples: samples, positions: positions, lengths: lengths, kernel_element(dtype, "dtype").number,
            weights: weights)
    }
}

@_cdecl("bn_jvp") @_optimize(size) @inline(never)
public func exportJvp(
    shape: UnsafePointer<bn_shape>?, dtype: bn_dtype, x: UnsafeRawPointer?, xTangent: UnsafeRawPointer?,
    gamma: UnsafeRawPointer?, gammaTangent: UnsafeRawPointer?, betaTangent: UnsafeRawPointer?,
    savedMean: UnsafePointer<Double>?, savedInvstd: UnsafePointer<Double>?, yTangent: UnsafeMutableRawPointer?,
    options: UnsafePointer<bn_options>?
) -> bn_status {
    Call.compute("bn_jvp") { call throws(Failure) in
        try call.jvp(
            Geometry(shape, dtype, call), x: x, xTangent: xTangent, gamma: gamma, gammaTangent: gammaTangent,
            betaTangent: betaTangent, savedMean: savedMean, savedInvstd: savedInvstd, yTangent: yTangent,
            options: Options(options, call))
    }
}

@_cdecl("bn_double_backward") @_optimize(size) @inline(never)
public func exportDoubleBackward(
    shape: UnsafePointer<bn_shape>?, dtype: bn_dtype, gradDx: UnsafeRawPointer?, gradDgamma: UnsafeRawPointer?,
    gradDbeta: UnsafeRawPointer?, dy: UnsafeRawPointer?, x: UnsafeRawPointer?, gamma: UnsafeRawPointer?,
    savedMean: UnsafePointer<Double>?, savedInvstd: UnsafePointer<Double>?, gradDy: UnsafeMutableRawPointer?,
    gradX: UnsafeMutableRawPointer?, gradGamma: UnsafeMutableRawPointer?, options: UnsafePointer<bn_options>?
) -> bn_status {
    Call.compute("bn_double_backward") { call throws(Failure) in
        try call.doubleBackward(
            Geometry(shape, dtype, call),
            Call.SecondOrder(dx: gradDx, dgamma: gradDgamma, dbeta: gradDbeta, dy: gradDy, x: gradX, gamma: gradGamma),
            dy: dy, x: x, gamma: gamma, savedMean: savedMean, savedInvstd: savedInvstd, options: Options(options, call))
    }
}

@_cdecl("bn_scale_shift") @_optimize(size)
public func exportScaleShift(
    channels: Int, dtype: bn_dtype, gamma: UnsafeRawPointer?, beta: UnsafeRawPointer?, runningMean: UnsafeRawPointer?,
    runningVar: UnsafeRawPointer?, scale: UnsafeMutablePointer<Double>?, shift: UnsafeMutablePointer<Double>?,
    options: UnsafePointer<bn_options>?
) -> bn_status {
    Call.compute("bn_scale_shift") { call throws(Failure) in
        try call.scaleShift(
            channels: channels, kernel_element(dtype, "dtype"), gamma: gamma, beta: beta,
            runningMean: runningMean, runningVar: runningVar, scale: scale, shift: shift,
            options: Options(options, call))
    }
}

@_cdecl("bn_fold_into_previous") @_optimize(size)
public func exportFoldIntoPrevious(
    shape: UnsafePointer<bn_shape>?, dtype: bn_dtype, weight: UnsafeRawPointer?, bias: UnsafeRawPointer?,
    scale: UnsafePointer<Double>?, shift: UnsafePointer<Double>?, foldedWeight: UnsafeMutableRawPointer?,
    foldedBias: UnsafeMutableRawPointer?
) -> bn_status {
    Call.compute("bn_fold_into_previous") { call throws(Failure) in
        let geometry = try Geometry(shape, dtype, call)
        try Folding(
            call, geometry, biases: geometry.channels, weight: weight, bias: bias, scale: scale, shift: shift,
            foldedWeight: foldedWeight, foldedBias: foldedBias
        ).intoPrevious()
    }
}

@_cdecl("bn_fold_into_next") @_optimize(size)
public func exportFoldIntoNext(
    shape: UnsafePointer<bn_shape>?, dtype: bn_dtype, weight: UnsafeRawPointer?, bias: UnsafeRawPointer?,
    scale: UnsafePointer<Double>?, shift: UnsafePointer<Double>?, foldedWeight: UnsafeMutableRawPointer?,
    foldedBias: UnsafeMutableRawPointer?
) -> bn_status {
    Call.compute("bn_fold_into_next") { call throws(Failure) in
        let geometry = try Geometry(shape, dtype, call)
        try Folding(
            call, geometry, biases: geometry.outer, weight: weight, bias: bias, scale: scale, shift: shift,
            foldedWeight: foldedWeight, foldedBias: foldedBias
        ).intoNext()
    }
}

@_cdecl("bn_shape_from_strides") @_optimize(size)
public func exportShapeFromStrides(
    rank: Int, sizes: UnsafePointer<Int64>?, channelAxis: Int, channelAxes: Int, tensors: Int,
    strides: UnsafePointer<Int64>?, samplesOutermost: Int32, shape: UnsafeMutablePointer<bn_shape>?,
    outerStrides: UnsafeMutablePointer<Int>?
) -> bn_status {
    Call.serve("bn_shape_from_strides") { call throws(Failure) in
        try call.shapeFromStrides(
            rank: rank, sizes: sizes, channelAxis: channelAxis, channelAxes: channelAxes, tensors: tensors,
            strides: strides, samplesOutermost: flag(samplesOutermost, "samples_outermost"), shape: shape,
            outerStrides: outerStrides)
    }
}

@_cdecl("bn_version")
public func exportVersion() -> Int32 { Int32(BN_VERSION_MAJOR * 10000 + BN_VERSION_MINOR * 100 + BN_VERSION_PATCH) }

@_cdecl("bn_status_string")
public func exportStatusString(status: bn_status) -> UnsafePointer<CChar>? { statusText(status) }

@_cdecl("bn_last_error")
public func exportLastError() -> UnsafePointer<CChar>? {
    Library.shared?.pointee.thread?.pointee.lastError ?? statusText(BN_ERROR_MEMORY)
}

@_cdecl("bn_isa_name")
public func exportISAName() -> UnsafePointer<CChar>? {
    var name: StaticString?
    _ = Call.serve("bn_isa_name") { call throws(Failure) in
        if let failure = call.library.pointee.environment.isaFailure { throw failure }
        name = call.library.pointee.environment.isa.name
    }
    return name.map(characters)
}

@_cdecl("bn_set_num_threads")
public func exportSetNumThreads(threads: Int32) -> bn_status {
    Call.serve("bn_set_num_threads") { call throws(Failure) in
        guard 0...Environment.mostThreads ~= Int(threads) else {
            throw Failure(
                BN_ERROR_OPTION, "threads", .integer(Int(threads)), expected: "1 to 1024, or 0 for the default")
        }
        call.library.pointee.threads = Int(threads)
    }
}

@_cdecl("bn_set_parallel_for")
public func exportSetParallelFor(function: bn_parallel_for?, context: UnsafeMutableRawPointer?) -> bn_status {
    Call.serve("bn_set_parallel_for") { call throws(Failure) in
        call.thread.pointee.lentThreads = LentThreads(function, context)
    }
}

@_cdecl("bn_get_num_threads")
public func exportGetNumThreads() -> Int32 {
    var threads = 0
    _ = Call.serve("bn_get_num_threads") { call throws(Failure) in
        if let failure = call.library.pointee.environment.threadsFailure { throw failure }
        threads = call.library.pointee.threads
    }
    return Int32(threads)
}

/// Does not compile unless an export has the type of its prototype.
@inline(__always)
private func same<T>(_ prototype: T, _ export: T) {}

private func exportsMatchTheHeader() {
    same(CBatchNorm.bn_forward_training, exportForwardTraining)
    same(CBatchNorm.bn_forward_inference, exportForwardInference)
    same(CBatchNorm.bn_backward, exportBackward)
    same(CBatchNorm.bn_moments, exportMoments)
    same(CBatchNorm.bn_merge_moments, exportMergeMoments)
    same(CBatchNorm.bn_inverse_std, exportInverseStd)
    same(CBatchNorm.bn_normalize, exportNormalize)
    same(CBatchNorm.bn_backward_reduce, exportBackwardReduce)
    same(CBatchNorm.bn_backward_apply, exportBackwardApply)
    same(CBatchNorm.bn_update_running, exportUpdateRunning)
    same(CBatchNorm.bn_length_weights, exportLengthWeights)
    same(CBatchNorm.bn_jvp, exportJvp)
    same(CBatchNorm.bn_double_backward, exportDoubleBackward)
    same(CBatchNorm.bn_scale_shift, exportScaleShift)
    same(CBatchNorm.bn_fold_into_previous, exportFoldIntoPrevious)
    same(CBatchNorm.bn_fold_into_next, exportFoldIntoNext)
    same(CBatchNorm.bn_shape_from_strides, exportShapeFromStrides)
    same(CBatchNorm.bn_version, exportVersion)
    same(CBatchNorm.bn_status_string, exportStatusString)
    same(CBatchNorm.bn_last_error, exportLastError)
    same(CBatchNorm.bn_isa_name, exportISAName)
    same(CBatchNorm.bn_set_num_threads, exportSetNumThreads)
    same(CBatchNorm.bn_get_num_threads, exportGetNumThreads)
    same(CBatchNorm.bn_set_parallel_for, exportSetParallelFor)
}
