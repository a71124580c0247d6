// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The three calls of a training loop as built-in functions of CPython (METH_FASTCALL): a small tensor's call takes a third
/// of the time that it takes by ctypes and Python. See CKernels' python.h for their arguments and results.

@_cdecl("batchnorm_python_forward_training")
public func pythonForwardTraining(
    module: UnsafeRawPointer?, given: UnsafePointer<UnsafeRawPointer?>?, count: Int
) -> UnsafeMutableRawPointer? {
    let python = Interpreter(module!)
    guard let arguments = Arguments(given, count, of: 10),
        var call = PlainCall(python, x: arguments[0], axis: python.int(arguments[6])),
        let momentum = python.float(arguments[7]), let eps = python.float(arguments[8]),
        let isUnbiased = python.bool(arguments[9])
    else { return python.none }
    let x = call.tensor(arguments[0])
    let gamma = call.parameters(arguments[1])
    let beta = call.parameters(arguments[2])
    let mean = call.parameters(arguments[3], isOutput: true)
    let variance = call.parameters(arguments[4], isOutput: true)
    let y = call.tensor(arguments[5], isOutput: true)
    if !call.isPlain { return python.none }
    var options = options(eps, call)
    options.momentum = momentum
    options.biased_running_var = isUnbiased ? 0 : 1
    let isInPlace = x == y && x != nil
    guard
        let (object, record) = Record.new(
            of: call, gamma: gamma, beta: beta, isFrozen: false, isInPlace: isInPlace)
    else { return python.none }
    let status = python.unlocked {
        exportForwardTraining(
            shape: &call.shape, dtype: call.element.dtype, x: x, gamma: record.gamma, beta: record.beta,
            runningMean: mean, runningVar: variance, y: y, savedMean: record.mean, savedInvstd: record.invstd,
            options: &options)
    }
    return python.result(object, status)
}

@_cdecl("batchnorm_python_forward_inference")
public func pythonForwardInference(
    module: UnsafeRawPointer?, given: UnsafePointer<UnsafeRawPointer?>?, count: Int
) -> UnsafeMutableRawPointer? {
    let python = Interpreter(module!)
    guard let arguments = Arguments(given, count, of: 9),
        var call = PlainCall(python, x: arguments[0], axis: python.int(arguments[6])),
        let eps = python.float(arguments[7]), let records = python.bool(arguments[8])
    else { return python.none }
    let x = call.tensor(arguments[0])
    var gamma = call.parameters(arguments[1])
    var beta = call.parameters(arguments[2])
    let mean = call.parameters(arguments[3])
    let variance = call.parameters(arguments[4])
    let y = call.tensor(arguments[5], isOutput: true)
    if !call.isPlain { return python.none }
    var options = options(eps, call)
    var (object, record) = (python.yes, Record?.none)
    if records {
        python.release(object)
        let isInPlace = x == y && x != nil
        guard let new = Record.new(of: call, gamma: gamma, beta: beta, isFrozen: true, isInPlace: isInPlace)
        else { return python.none }
        (object, record, gamma, beta) = (new.object, new.record, new.record.gamma, new.record.beta)
    }
    let status = python.unlocked {
        exportForwardInference(
            shape: &call.shape, dtype: call.element.dtype, x: x, gamma: gamma, beta: beta, runningMean: mean,
            runningVar: variance, y: y, savedMean: record?.mean, savedInvstd: record?.invstd, options: &options)
    }
    return python.result(object, status)
}

@_cdecl("batchnorm_python_backward")
public func pythonBackward(
    module: UnsafeRawPointer?, given: UnsafePointer<UnsafeRawPointer?>?, count: Int
) -> UnsafeMutableRawPointer? {
    let python = Interpreter(module!)
    guard let arguments = Arguments(given, count, of: 6), let bytes = python.bytes(arguments[2]),
        let record = Record(bytes), var call = PlainCall(python, x: arguments[1], axis: record.axis),
        call.rank == record.rank, call.element == record.element, call.shape.channels == record.channels
    else { return python.none }
    for axis in 0..<call.rank where call.sizes[axis] != record.sizes[axis] { return python.none }
    let dy = call.tensor(arguments[0])
    let x = call.tensor(arguments[1])
    let dx = call.tensor(arguments[3], isOutput: true)
    let dgamma = call.parameters(arguments[4], isOutput: true)
    let dbeta = call.parameters(arguments[5], isOutput: true)
    if !call.isPlain || call.parameter != record.parameter { return python.none }
    var options = options(1e-5, call)
    options.frozen = record.isFrozen ? 1 : 0
    let status = python.unlocked {
        exportBackward(
            shape: &call.shape, dtype: call.element.dtype, dy: dy, x: x, gamma: record.gamma, beta: record.beta,
            savedMean: record.mean, savedInvstd: record.invstd, dx: dx, dgamma: dgamma, dbeta: dbeta,
            options: &options)
    }
    return python.result(python.yes, status)
}

/// So many arguments as the function takes.
private struct Arguments {
    private let given: UnsafePointer<UnsafeRawPointer?>

    init?(_ given: UnsafePointer<UnsafeRawPointer?>?, _ count: Int, of expected: Int) {
        guard let given, count == expected else { return nil }
        self.given = given
    }

    subscript(place: Int) -> UnsafeRawPointer { given[place]! }
}

private func options(_ eps: Double, _ call: PlainCall) -> bn_options {
    var options = bn_options()
    options.struct_size = MemoryLayout<bn_options>.size
    options.eps = eps
    options.param_dtype = call.parameterOption
    return options
}

extension Interpreter {
    /// The result of a call: `object`, or None if the library refused it.
    fileprivate func result(_ object: UnsafeMutableRawPointer, _ status: bn_status) -> UnsafeMutableRawPointer {
        if status == BN_OK { return object }
        release(object)
        return none
    }
}
