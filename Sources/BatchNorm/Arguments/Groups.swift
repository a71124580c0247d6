// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// A checked bn_groups: which samples are normalized together, and what has a row per group.
struct Groups {
    let samples: Int
    let count: Int
    let index: UnsafePointer<Int32>?
    private let interleaved: Bool
    let averaged: Bool
    private var perGroup: Int32

    var ownStatistics: Bool { has(BN_PER_GROUP_STATISTICS) }
    var ownRunning: Bool { has(BN_PER_GROUP_RUNNING) }
    var ownParameters: Bool { has(BN_PER_GROUP_PARAMETERS) }
    private func has(_ bit: bn_per_group) -> Bool { UInt32(perGroup) & bit.rawValue != 0 }
    /// The same groups, with parameters of their own.
    var havingParameters: Groups {
        var groups = self
        groups.perGroup |= Int32(BN_PER_GROUP_PARAMETERS.rawValue)
        return groups
    }
    /// True if gamma differs among values that share their statistics: a gain of dy, before its sums are taken.
    var gains: Bool { ownParameters && !ownStatistics }
    var statisticsRows: Int { ownStatistics ? count : 1 }
    var runningRows: Int { ownRunning ? count : 1 }
    var parameterRows: Int { ownParameters ? count : 1 }
    /// The row of a group.
    func statisticsRow(_ group: Int) -> Int { ownStatistics ? group : 0 }
    func runningRow(_ group: Int) -> Int { ownRunning ? group : 0 }
    func parameterRow(_ group: Int) -> Int { ownParameters ? group : 0 }

    /// All samples are one group.
    init() {
        samples = 1
        count = 1
        index = nil
        interleaved = false
        averaged = false
        perGroup = 1
    }

    init(_ given: bn_groups) throws(Failure) {
        try checkSize(
            given.struct_size, bn_groups.self, "groups->struct_size", expected: "sizeof(bn_groups)")
        guard given.samples > 0 else {
            throw Failure(BN_ERROR_OPTION, "groups->samples", .size(given.samples), expected: "at least 1")
        }
        guard 1...Int(Int32.max) ~= given.groups else {
            throw Failure(BN_ERROR_OPTION, "groups->groups", .size(given.groups), expected: "1 to INT32_MAX")
        }
        guard 1...7 ~= given.per_group, given.per_group & 3 != 2 else {
            throw Failure(
                BN_ERROR_OPTION, "groups->per_group", .integer(Int(given.per_group)),
                expected: "a sum of bn_per_group, RUNNING (2) with STATISTICS (1) only")
        }
        interleaved = try flag(given.interleaved, "groups->interleaved")
        averaged = try flag(given.averaged, "groups->averaged")
        if averaged && given.per_group & 3 != 1 {
            throw Failure(
                BN_ERROR_OPTION, "groups->averaged", .integer(1),
                expected: "0, unless statistics are per group and running statistics are not")
        }
        try checkReserved(given.reserved, "groups->reserved")
        if given.index != nil && interleaved {
            throw Failure(BN_ERROR_OPTION, "groups->interleaved", .integer(1), expected: "0 beside an index")
        }
        if given.index == nil && given.samples % given.groups != 0 {
            throw Failure(
                BN_ERROR_OPTION, "groups->groups", .size(given.groups),
                expected: "a divisor of samples, without an index")
        }
        samples = given.samples
        count = given.groups
        index = given.index
        perGroup = given.per_group
    }

    /// Enters the index, and checks all that depends on the tensors.
    func enter(_ arguments: ArgumentList) throws(Failure) {
        if arguments.outer % samples != 0 {
            throw Failure(BN_ERROR_OPTION, "groups->samples", .size(samples), expected: "a divisor of shape->outer")
        }
        guard let index else { return }
        try arguments.array("groups->index", index, count: samples, size: 4)
        for sample in 0..<samples where !(0..<count ~= Int(index[sample])) {
            throw Failure(
                BN_ERROR_OPTION, "groups->index", .element(sample, Double(index[sample])), expected: "0 to groups - 1")
        }
    }

    func group(_ sample: Int) -> Int { index.map { Int($0[sample]) } ?? sample % count }

    /// True if groups lie `length` outer indices to the sample, one after the other or at even distances.
    func areEven(_ length: Int) -> Bool { index == nil && (!interleaved || length <= 1) }

    func even(_ group: Int, _ outer: Int) -> Slice {
        let members = outer / count
        return interleaved
            ? Slice(start: group, count: members, step: count, group: group)
            : Slice(start: group * members, count: members, step: 1, group: group)
    }

    /// The samples from one on that are of its group; as a slice, where a sample has so many outer indices.
    func run(from first: Int, _ length: Int) -> (slice: Slice, next: Int) {
        var next = first + 1
        while next < samples && group(next) == group(first) { next += 1 }
        return (Slice(start: first * length, count: (next - first) * length, step: 1, group: group(first)), next)
    }

    /// True if each group is one slice.
    func areWhole(_ outer: Int) -> Bool {
        if index == nil { return !interleaved || outer == samples || count == 1 }
        for sample in 1..<samples where group(sample) < group(sample - 1) { return false }
        return true
    }
}
