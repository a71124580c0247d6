// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// Checked options, with the defaults for a caller that gave none.
struct Options {
    private(set) var eps = 1e-5
    private(set) var momentum = 0.1
    private(set) var biasedRunningVariance = false
    private(set) var frozen = false
    /// Of gamma, beta and the running statistics, if it is not what the data would have.
    private(set) var parameter: kernel_element?
    /// Descriptors, which are checked here and looked at again by those who need one: most calls have none.
    private var given = Given()

    private struct Given {
        var epilogue: UnsafePointer<bn_epilogue>?
        var running: UnsafePointer<bn_running>?
        var source: UnsafePointer<bn_source>?
        var groups: UnsafePointer<bn_groups>?
    }

    var epilogue: Epilogue? { given.epilogue.flatMap { try? Epilogue($0.pointee) } }
    var running: Running? { given.running.flatMap { try? Running($0.pointee) } }
    var source: Source? { given.source.flatMap { try? Source($0.pointee) } }
    var groups: Groups? { given.groups.flatMap { try? Groups($0.pointee) } }

    /// Whether there is no descriptor; and whether there is none that makes more of a forward call than one sweep.
    var isPlain: Bool { given.epilogue == nil && isOneBatch }
    var isOneBatch: Bool { given.running == nil && given.source == nil && given.groups == nil }

    init(_ options: UnsafePointer<bn_options>?) throws(Failure) {
        guard let given = options else { return }
        var options = bn_options()
        // What version 1.0 did not know is 0, its default; it ended with `frozen`.
        try checkSize(
            given.pointee.struct_size, bn_options.self, earlier: 32, "options->struct_size",
            expected: "sizeof(bn_options)")
        memcpy(&options, given, given.pointee.struct_size)
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
        try checkReserved(options.reserved, "reserved")
        if options.param_dtype.rawValue != 0 { parameter = try kernel_element(options.param_dtype, "param_dtype") }
        self.given = Given(
            epilogue: options.epilogue, running: options.running, source: options.source, groups: options.groups)
        if !isPlain { try checkDescriptors() }
    }
}

extension Options {
    @inline(never)
    private func checkDescriptors() throws(Failure) {
        if let epilogue = given.epilogue { _ = try Epilogue(epilogue.pointee) }
        if let running = given.running { _ = try Running(running.pointee) }
        if let source = given.source { _ = try Source(source.pointee) }
        if let groups = given.groups { _ = try Groups(groups.pointee) }
    }

    struct Descriptors: OptionSet {
        let rawValue: Int
        static var epilogue: Descriptors { Descriptors(rawValue: 1) }
        static var running: Descriptors { Descriptors(rawValue: 2) }
        static var source: Descriptors { Descriptors(rawValue: 4) }
        static var groups: Descriptors { Descriptors(rawValue: 8) }
    }

    /// For a function that does not take them.
    func refuse(_ descriptors: Descriptors) throws(Failure) {
        if isPlain { return }
        if given.epilogue != nil && descriptors.contains(.epilogue) { throw refusal("options->epilogue") }
        if given.running != nil && descriptors.contains(.running) { throw refusal("options->running") }
        if given.source != nil && descriptors.contains(.source) { throw refusal("options->source") }
        if given.groups != nil && descriptors.contains(.groups) { throw refusal("options->groups") }
    }

    private func refusal(_ name: StaticString) -> Failure {
        Failure(BN_ERROR_OPTION, name, .set, expected: "NULL, as this function does not take it")
    }
}
