// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// Some outer indices that are handled as one tensor: `count` of them, `step` apart; and the group that they are of.
struct Slice {
    let start: Int
    let count: Int
    let step: Int
    let group: Int
}

/// A checked bn_groups: which samples are normalized together, and what has a row per group.
struct Groups {
    fileprivate let samples: Int
    let count: Int
    private let index: UnsafePointer<Int32>?
    private let interleaved: Bool
    let averaged: Bool
    private let perGroup: Int32

    var ownStatistics: Bool { has(BN_PER_GROUP_STATISTICS) }
    var ownRunning: Bool { has(BN_PER_GROUP_RUNNING) }
    var ownParameters: Bool { has(BN_PER_GROUP_PARAMETERS) }
    private func has(_ bit: bn_per_group) -> Bool { UInt32(perGroup) & bit.rawValue != 0 }
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

    /// What depends on the tensors: before an index is read, and after its memory is known to be sound.
    func check(_ geometry: Geometry, _ memory: inout Memory) throws(Failure) {
        if geometry.outer % samples != 0 {
            throw Failure(BN_ERROR_OPTION, "groups->samples", .size(samples), expected: "a divisor of shape->outer")
        }
        if (64 * geometry.channels).multipliedReportingOverflow(by: count).overflow {
            throw Failure(BN_ERROR_OPTION, "groups->groups", .size(count), expected: "fewer rows than memory holds")
        }
        guard let index else { return }
        try memory.input(Region("groups->index", index, count: samples, size: 4))
        for sample in 0..<samples where !(0..<count ~= Int(index[sample])) {
            throw Failure(
                BN_ERROR_OPTION, "groups->index", .element(sample, Double(index[sample])), expected: "0 to groups - 1")
        }
    }

    /// The slices in order; neighbours of one group are one slice.
    func slices(_ outer: Int) -> Slices { Slices(self, outer, seen: nil) }

    /// And an empty one for each group that has no samples, if statistics have rows, so that its rows are written.
    func slicesOfAll(_ outer: Int, _ call: Call) throws(Failure) -> Slices {
        if index == nil || !(ownStatistics || ownRunning) { return slices(outer) }
        let seen = try call.thread.pointee.seen.reserve(count).assumingMemoryBound(to: UInt8.self)
        memset(seen, 0, count)
        return Slices(self, outer, seen: seen)
    }

    /// Adds to `totals` the sum of each statistics row's weights, and sets `isSingle` to 1 where a row has one value, else 0.
    func weigh(_ geometry: Geometry, totals: UnsafeMutablePointer<Double>, isSingle: UnsafeMutablePointer<Double>) {
        var slices = slices(geometry.outer)
        while let slice = slices.next() {
            let part = geometry.slice(slice)
            let row = statisticsRow(slice.group)
            if part.values == 0 { continue }
            isSingle[row] = part.isSingle && totals[row] == 0 ? 1 : 0
            totals[row] += part.values
        }
    }

    fileprivate func group(_ sample: Int) -> Int { index.map { Int($0[sample]) } ?? sample % count }

    /// Whether groups lie `length` outer indices to the sample, one after the other or at even distances.
    fileprivate func areEven(_ length: Int) -> Bool { index == nil && (!interleaved || length <= 1) }

    fileprivate func even(_ group: Int, _ outer: Int) -> Slice {
        let members = outer / count
        return interleaved
            ? Slice(start: group, count: members, step: count, group: group)
            : Slice(start: group * members, count: members, step: 1, group: group)
    }

    /// The samples from one on that are of its group; as a slice, where a sample has so many outer indices.
    fileprivate func run(from first: Int, _ length: Int) -> (slice: Slice, next: Int) {
        var next = first + 1
        while next < samples && group(next) == group(first) { next += 1 }
        return (Slice(start: first * length, count: (next - first) * length, step: 1, group: group(first)), next)
    }

    /// Whether each group is one slice.
    func areWhole(_ outer: Int) -> Bool {
        if index == nil { return !interleaved || outer == samples || count == 1 }
        for sample in 1..<samples where group(sample) < group(sample - 1) { return false }
        return true
    }
}

struct Slices {
    private let groups: Groups
    private let outer: Int
    /// A byte for each group, whether it has had a slice; where groups without one are wanted as well.
    private let seen: UnsafeMutablePointer<UInt8>?
    private var sample = 0
    private var group = 0

    fileprivate init(_ groups: Groups, _ outer: Int, seen: UnsafeMutablePointer<UInt8>?) {
        self.groups = groups
        self.outer = outer
        self.seen = seen
    }

    @inline(never)
    mutating func next() -> Slice? {
        let length = outer / groups.samples
        if groups.areEven(length) {
            group += 1
            return group > groups.count ? nil : groups.even(group - 1, outer)
        }
        if sample < groups.samples {
            let run = groups.run(from: sample, length)
            sample = run.next
            seen?[run.slice.group] = 1
            return run.slice
        }
        guard let seen else { return nil }
        while group < groups.count {
            group += 1
            if seen[group - 1] == 0 { return Slice(start: 0, count: 0, step: 1, group: group - 1) }
        }
        return nil
    }
}

extension Call {
    /// A sweep for each slice. All take their memory first: what fails for want of it fails before anything is written.
    @inline(never)
    func run(_ slices: Slices, _ make: (Slice) -> UnsafeMutablePointer<Sweep>) throws(Failure) {
        var next = slices
        while let slice = next.next() { try make(slice).pointee.reserve(self) }
        next = slices
        while let slice = next.next() { try make(slice).pointee.run(self) }
    }
}

extension Geometry {
    /// Those of the tensors' outer indices.
    func slice(_ slice: Slice) -> Geometry {
        var part = self
        part.outer = slice.count
        part.xStride = xStride * slice.step
        part.yStride = yStride * slice.step
        part.dxStride = dxStride * slice.step
        part.weights = weights?.slice(slice, number)
        // Every weight has been looked at, so that there is nothing left to be thrown.
        try? part.weigh()
        return part
    }
}

extension Operand {
    func slice(_ slice: Slice, _ elementSize: Int) -> Operand {
        Operand(base: base.map { $0 + slice.start * stride * elementSize }, stride: stride * slice.step)
    }
}
