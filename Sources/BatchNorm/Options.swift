// SPDX-License-Identifier: Apache-2.0
import CBatchNorm

/// Checked options, with the defaults for a caller that gave none.
struct Options {
    private(set) var eps = 1e-5
    private(set) var momentum = 0.1
    private(set) var biasedRunningVariance = false
    private(set) var frozen = false

    init(_ options: UnsafePointer<bn_options>?) throws(Failure) {
        guard let options = options?.pointee else { return }
        guard options.struct_size == MemoryLayout<bn_options>.size else {
            throw Failure(
                BN_ERROR_STRUCT_SIZE, "options->struct_size", .size(options.struct_size),
                expected: "sizeof(bn_options), which is 32")
        }
        guard options.eps >= 0, options.eps < .infinity else {
            throw Failure(BN_ERROR_OPTION, "eps", .real(options.eps), expected: "a finite number, at least 0")
        }
        guard options.momentum >= 0, options.momentum <= 1 else {
            throw Failure(BN_ERROR_OPTION, "momentum", .real(options.momentum), expected: "a number from 0 to 1")
        }
        eps = options.eps
        momentum = options.momentum
        biasedRunningVariance = try flag(options.biased_running_var, "biased_running_var")
        frozen = try flag(options.frozen, "frozen")
    }
}

private func flag(_ value: Int32, _ name: StaticString) throws(Failure) -> Bool {
    if value != 0 && value != 1 { throw Failure(BN_ERROR_OPTION, name, .integer(Int(value)), expected: "0 or 1") }
    return value == 1
}
