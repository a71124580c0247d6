// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// Checked options, with the defaults for a caller that gave none.
struct Options {
    private(set) var eps = 1e-5
    private(set) var momentum = 0.1
    private(set) var biasedRunningVariance = false
    private(set) var frozen = false
    /// The type of gamma, beta and the running statistics, if it is not the one that goes with the tensors.
    private(set) var parameter: kernel_element?
    /// In memory of the thread's: most calls have none.
    private var descriptors: UnsafePointer<Descriptors>?

    var epilogue: Epilogue? { descriptors?.pointee.epilogue }
    var running: Running? { descriptors?.pointee.running }
    var source: Source? { descriptors?.pointee.source }
    var groups: Groups? { descriptors?.pointee.groups }

    /// True if there is no descriptor; and if there is none for which a forward call needs more than one sweep.
    private(set) var isPlain = true
    private(set) var isOneBatch = true

    init(_ given: UnsafePointer<bn_options>?, _ call: Call) throws(Failure) {
        guard let given else { return }
        try call.structure(given, "options")
        let options = given.pointee
        try checkSize(options.struct_size, bn_options.self, "options->struct_size", expected: "sizeof(bn_options)")
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
        if options.epilogue != nil || options.running != nil || options.source != nil || options.groups != nil {
            let place = call.thread.pointee.slot(.descriptors, Descriptors.self)
            place.initialize(to: try Descriptors(options, call))
            descriptors = UnsafePointer(place)
            isPlain = false
            isOneBatch = options.running == nil && options.source == nil && options.groups == nil
        }
    }
}

/// The checked structures that options point to. They are read once: the caller may change its memory at any time.
struct Descriptors {
    private(set) var epilogue: Epilogue?
    private(set) var running: Running?
    private(set) var source: Source?
    private(set) var groups: Groups?

    @inline(never)
    @_optimize(size)
    fileprivate init(_ options: bn_options, _ call: Call) throws(Failure) {
        if let given = options.epilogue {
            try call.structure(given, "options->epilogue")
            epilogue = try Epilogue(given.pointee)
        }
        if let given = options.running {
            try call.structure(given, "options->running")
            running = try Running(given.pointee)
        }
        if let given = options.source {
            try call.structure(given, "options->source")
            source = try Source(given.pointee)
        }
        if let given = options.groups {
            try call.structure(given, "options->groups")
            groups = try Groups(given.pointee)
        }
    }

    struct Kinds: OptionSet {
        let rawValue: Int
        static var epilogue: Kinds { Kinds(rawValue: 1) }
        static var running: Kinds { Kinds(rawValue: 2) }
        static var source: Kinds { Kinds(rawValue: 4) }
        static var groups: Kinds { Kinds(rawValue: 8) }
    }
}

extension Options {
    /// For a function whose result they would change, and which does not take them.
    func refuse(_ kinds: Descriptors.Kinds) throws(Failure) {
        if isPlain { return }
        if epilogue != nil && kinds.contains(.epilogue) { throw refusal("options->epilogue") }
        if running != nil && kinds.contains(.running) { throw refusal("options->running") }
        if source != nil && kinds.contains(.source) { throw refusal("options->source") }
        if groups != nil && kinds.contains(.groups) { throw refusal("options->groups") }
    }

    private func refusal(_ name: StaticString) -> Failure {
        Failure(BN_ERROR_OPTION, name, .set, expected: "NULL, as this function does not take it")
    }
}

extension Options {
    /// The extents of tensors, with the type of parameters that the options say.
    func geometry(_ given: Geometry) -> Geometry { parameter.map(given.with) ?? given }

    /// The list of a call's arguments, which have the rows that groups say.
    func arguments(_ call: Call, _ geometry: Geometry) throws(Failure) -> ArgumentList {
        var arguments = geometry.arguments(call)
        if let groups = descriptors?.pointee.groups {
            if (64 * geometry.channels).multipliedReportingOverflow(by: groups.count).overflow {
                throw Failure(
                    BN_ERROR_OPTION, "groups->groups", .size(groups.count), expected: "fewer rows than memory holds")
            }
            arguments.statisticsRows = groups.statisticsRows
            arguments.runningRows = groups.runningRows
            arguments.parameterRows = groups.parameterRows
        }
        return arguments
    }
}
