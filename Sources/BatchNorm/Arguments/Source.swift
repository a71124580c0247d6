// SPDX-License-Identifier: Apache-2.0
import CBatchNorm

/// A checked bn_source: what x is normalized with in training.
struct Source {
    private(set) var kind = BN_SOURCE_BATCH
    private(set) var pseudoCount = 0.0
    private(set) var rMin = 0.0
    private(set) var rMax = Double.infinity
    private(set) var dMax = Double.infinity
    private(set) var saved: UnsafeMutablePointer<Double>?

    /// The batch's own statistics, and nothing saved.
    init() {}

    init(_ given: bn_source) throws(Failure) {
        try checkSize(
            given.struct_size, bn_source.self, "source->struct_size", expected: "sizeof(bn_source)")
        try checkMember(
            given.kind.rawValue, last: BN_SOURCE_UPDATED.rawValue, "source->kind",
            expected: "a bn_source_kind, from BN_SOURCE_BATCH (0) to BN_SOURCE_UPDATED (3)")
        try checkReserved(given.reserved, "source->reserved")
        guard given.pseudo_count >= 0, given.pseudo_count < .infinity else {
            throw Failure(
                BN_ERROR_OPTION, "source->pseudo_count", .real(given.pseudo_count),
                expected: "a finite number of values, at least 0")
        }
        guard given.r_min >= 0, given.r_min <= 1 else {
            throw Failure(BN_ERROR_OPTION, "source->r_min", .real(given.r_min), expected: "a number from 0 to 1")
        }
        guard given.r_max >= 1 else {
            throw Failure(BN_ERROR_OPTION, "source->r_max", .real(given.r_max), expected: "a number, at least 1")
        }
        guard given.d_max >= 0 else {
            throw Failure(BN_ERROR_OPTION, "source->d_max", .real(given.d_max), expected: "a number, at least 0")
        }
        kind = given.kind
        pseudoCount = given.pseudo_count
        rMin = given.r_min
        rMax = given.r_max
        dMax = given.d_max
        saved = try need(given.saved, "source->saved")
    }
}
