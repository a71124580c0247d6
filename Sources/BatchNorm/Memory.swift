// SPDX-License-Identifier: Apache-2.0
import CBatchNorm

/// The memory of a call, gathered argument by argument and checked on the way, before anything is written.
struct Memory {
    /// No function takes more pointers.
    static let capacity = 24

    /// In memory of the thread's, as it would take longer to be cleared than to be used.
    private let regions: UnsafeMutablePointer<Region>
    private var count = 0

    init(_ call: Call) { regions = call.thread.pointee.regions }

    @inline(never)
    mutating func input(_ region: Region) throws(Failure) { try add(region) }

    /// An output shares memory with nothing, but for the one input that it may be.
    @inline(never)
    mutating func output(_ region: Region, orExactly twin: Region? = nil) throws(Failure) {
        for index in 0..<count where region.overlaps(regions[index]) {
            let isTwin = twin.map { $0.isArgument(regions[index]) } ?? false
            if isTwin && region.coincides(with: regions[index]) { continue }
            throw Failure(
                BN_ERROR_OVERLAP, region.name, .overlap(regions[index].name),
                expected: isTwin ? "memory of its own, or the same pointer and stride" : "memory of its own")
        }
        try add(region)
    }

    @inline(never)
    private mutating func add(_ region: Region) throws(Failure) {
        if region.base % UInt(region.alignment) != 0 {
            throw Failure(
                BN_ERROR_ALIGNMENT, region.name, .address(region.base),
                expected: region.alignment == 8
                    ? "an address that is a multiple of 8"
                    : region.alignment == 4 ? "an address that is a multiple of 4" : "an even address")
        }
        (regions + count).initialize(to: region)
        count += 1
    }
}
