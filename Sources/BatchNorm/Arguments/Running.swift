// SPDX-License-Identifier: Apache-2.0
import CBatchNorm

/// A checked bn_running: how running statistics are kept.
struct Running {
    private(set) var average = BN_AVERAGE_EXPONENTIAL
    private(set) var singleValue = BN_SINGLE_VALUE_ERROR
    private(set) var nonfinite = BN_NONFINITE_PROPAGATE
    private(set) var numBatches: UnsafeMutablePointer<Int64>?
    private(set) var newMean: UnsafeMutableRawPointer?
    private(set) var newVar: UnsafeMutableRawPointer?
    private(set) var newNumBatches: UnsafeMutablePointer<Int64>?
    private(set) var outcome: UnsafeMutablePointer<Int32>?

    init() {}

    init(_ given: bn_running) throws(Failure) {
        try checkSize(
            given.struct_size, bn_running.self, "running->struct_size", expected: "sizeof(bn_running)")
        try checkMember(
            given.average.rawValue, last: BN_AVERAGE_FILLED.rawValue, "running->average",
            expected: "a bn_average, from BN_AVERAGE_EXPONENTIAL (0) to BN_AVERAGE_FILLED (4)")
        try checkMember(
            given.single_value.rawValue, last: BN_SINGLE_VALUE_BETA.rawValue, "running->single_value",
            expected: "a bn_single_value, from BN_SINGLE_VALUE_ERROR (0) to BN_SINGLE_VALUE_BETA (2)")
        try checkMember(
            given.nonfinite.rawValue, last: BN_NONFINITE_ERROR.rawValue, "running->nonfinite",
            expected: "a bn_nonfinite, from BN_NONFINITE_PROPAGATE (0) to BN_NONFINITE_ERROR (2)")
        try checkReserved(given.reserved, "running->reserved")
        average = given.average
        singleValue = given.single_value
        nonfinite = given.nonfinite
        numBatches = given.num_batches
        newMean = given.new_running_mean
        newVar = given.new_running_var
        newNumBatches = given.new_num_batches
        outcome = given.outcome
    }

    /// Enters its arrays, and checks which of them go together.
    func enter(
        hasRunning: Bool, source: Source, _ arguments: ArgumentList
    ) throws(Failure) {
        let (rows, groups) = (arguments.runningRows, arguments.statisticsRows)
        if average != BN_AVERAGE_EXPONENTIAL && hasRunning { _ = try need(numBatches, "running->num_batches") }
        if singleValue == BN_SINGLE_VALUE_RUNNING && !hasRunning {
            throw Failure(
                BN_ERROR_NULL, "running_mean", .null, expected: "running statistics, for BN_SINGLE_VALUE_RUNNING")
        }
        if source.kind != BN_SOURCE_BATCH && !hasRunning {
            throw Failure(
                BN_ERROR_NULL, "running_mean", .null,
                expected: "running statistics, for a source of more than the batch")
        }
        try needBothOrNeither(newMean, newVar, ("running->new_running_mean", "running->new_running_var"))
        if newMean != nil && !hasRunning {
            throw Failure(BN_ERROR_NULL, "running_mean", .null, expected: "running statistics, to make new ones of")
        }
        if (newNumBatches != nil) != (newMean != nil && numBatches != nil) {
            throw Failure(
                BN_ERROR_PAIR, "running->new_num_batches",
                newNumBatches == nil ? .null : .set,
                expected: "a pointer where there are num_batches and new_running_mean, NULL elsewhere")
        }
        try arguments.array(
            "running->num_batches", numBatches, count: rows, size: 8, newMean == nil ? .written : .read)
        _ = try arguments.running(
            newMean, newVar, .written, names: ("running->new_running_mean", "running->new_running_var"))
        try arguments.array("running->new_num_batches", newNumBatches, count: rows, size: 8, .written)
        try arguments.array("running->outcome", outcome, count: groups, size: 4, .written)
        guard let numBatches else { return }
        for row in 0..<rows where numBatches[row] < 0 || numBatches[row] > .max - Int64(groups) {
            throw Failure(
                BN_ERROR_OPTION, "running->num_batches", .element(row, Double(numBatches[row])),
                expected: "0 to INT64_MAX, less what this call counts")
        }
    }

    /// Where nothing is updated in place, makes the new statistics, which are those to go on with, those of before; the counts
    /// that are to go up.
    func begin(
        _ running: inout (mean: Elements, variance: Elements)?, rows: Int, _ geometry: Geometry
    ) -> UnsafeMutablePointer<Int64>? {
        guard let old = running, let newMean, let newVar else { return numBatches }
        let bytes = rows * geometry.channels * geometry.parameter.size
        newMean.copyMemory(from: old.mean.base, byteCount: bytes)
        newVar.copyMemory(from: old.variance.base, byteCount: bytes)
        running = (Elements(newMean, geometry.parameter), Elements(newVar, geometry.parameter))
        guard let numBatches, let newNumBatches else { return nil }
        newNumBatches.update(from: numBatches, count: rows)
        return newNumBatches
    }

    /// The weight of a row's next batch.
    func factor(_ momentum: Double, _ batches: Int64) -> Double {
        let n = Double(batches) + 1
        switch average {
        case BN_AVERAGE_CUMULATIVE: return 1 / n
        case BN_AVERAGE_WINDOWED: return max(1 / n, momentum)
        case BN_AVERAGE_DEBIASED:
            let seen = past(momentum, batches + 1)
            return seen == 0 ? 1 / n : momentum / seen
        case BN_AVERAGE_FILLED: return batches == 0 ? 1 : momentum
        default: return momentum
        }
    }
}

/// 1 − (1 − momentum)ⁿ, by doubling: of two such numbers a and b the next is a + b − a · b, where nothing cancels.
private func past(_ momentum: Double, _ n: Int64) -> Double {
    var (result, power, remaining) = (0.0, momentum, n)
    while remaining > 0 {
        if remaining & 1 == 1 { result += power - result * power }
        power += power - power * power
        remaining >>= 1
    }
    return result
}
