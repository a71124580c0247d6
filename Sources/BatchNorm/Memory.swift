// SPDX-License-Identifier: Apache-2.0
import CBatchNorm

/// The memory of a call, gathered argument by argument and checked on the way, before anything is written.
struct Memory {
    /// No function takes more pointers, its structures among them.
    static let capacity = 32

    /// In memory of the thread's, as it would take longer to be cleared than to be used.
    private let regions: UnsafeMutablePointer<Region>
    private var count: Int

    /// With the structures that the call has read: a shape, options, and what they point to.
    init(_ call: Call) {
        regions = call.thread.pointee.regions
        count = call.thread.pointee.structures
    }

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
        try region.checkAlignment()
        (regions + count).initialize(to: region)
        count += 1
    }
}

extension Call {
    /// A structure of the caller's, which no output may be in: a callee reads it once, but the caller may again.
    func structure<T>(_ pointer: UnsafePointer<T>, _ name: StaticString) throws(Failure) {
        let region = Region(name, structure: pointer)
        try region.checkAlignment()
        let count = thread.pointee.structures
        (thread.pointee.regions + count).initialize(to: region)
        thread.pointee.structures = count + 1
    }
}

extension Region {
    fileprivate func checkAlignment() throws(Failure) {
        if base % UInt(alignment) != 0 {
            throw Failure(
                BN_ERROR_ALIGNMENT, name, .address(base),
                expected: alignment == 8
                    ? "an address that is a multiple of 8"
                    : alignment == 4 ? "an address that is a multiple of 4" : "an even address")
        }
    }
}
