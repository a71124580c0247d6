// SPDX-License-Identifier: Apache-2.0
import CKernels

/// The slices of a batch in groups, in order; neighbours of one group are one slice.
struct Slices {
    private let groups: Groups
    private let outer: Int
    /// A byte for each group, whether it has had a slice; where groups without one are wanted as well.
    private let seen: UnsafeMutablePointer<UInt8>?
    private var sample = 0
    private var group = 0

    init(_ groups: Groups, _ outer: Int, seen: UnsafeMutablePointer<UInt8>?) {
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

extension Groups {
    /// The slices in order; neighbours of one group are one slice.
    func slices(_ outer: Int) -> Slices { Slices(self, outer, seen: nil) }

    /// As few as statistics need.
    func slicesOfStatistics(_ outer: Int) -> Slices { (ownStatistics ? self : Groups()).slices(outer) }

    /// And an empty one for each group that has no samples, if statistics have rows, so that its rows are written.
    func slicesOfAll(_ outer: Int, _ call: Call) throws(Failure) -> Slices {
        if index == nil || !(ownStatistics || ownRunning) { return slices(outer) }
        var layout = ArrayLayout()
        let place = layout.add(UInt8.self, count)
        let seen = place.in(try call.thread.pointee.seen.reserve(layout))
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
}
