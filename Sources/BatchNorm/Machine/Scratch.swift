// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// A thread's working memory, which grows and stays.
struct Scratch {
    private var memory: UnsafeMutableRawPointer?
    private var capacity = 0

    /// Memory for the arrays, which begins on a cache line, with what an earlier call left in it.
    mutating func reserve(_ arrays: ArrayLayout) throws(Failure) -> UnsafeMutableRawPointer {
        if let memory, arrays.bytes <= capacity { return memory }
        release()
        let bytes = max(arrays.bytes, 4096)
        var found: UnsafeMutableRawPointer?
        guard bytes < Int.max, posix_memalign(&found, 64, bytes) == 0, let found else {
            throw Failure(
                BN_ERROR_MEMORY, "working memory", .size(arrays.bytes), expected: "that many bytes to be free")
        }
        memory = found
        capacity = bytes
        return found
    }

    mutating func release() {
        free(memory)
        memory = nil
        capacity = 0
    }
}

/// Arrays that lie one after the other in one piece of memory: all are added, then the memory is taken, then each is found
/// in it. An array begins on a cache line, so that vectors of one do not straddle two.
struct ArrayLayout {
    /// In all; more than there can be, if an array was too large.
    private(set) var bytes = 0

    struct Place<Element> {
        fileprivate let offset: Int

        func `in`(_ memory: UnsafeMutableRawPointer) -> UnsafeMutablePointer<Element> {
            (memory + offset).assumingMemoryBound(to: Element.self)
        }
    }

    mutating func add<Element>(_: Element.Type, _ count: Int, times: Int = 1) -> Place<Element> {
        let offset = bytes
        let (each, isEachTooLarge) = (count &* MemoryLayout<Element>.stride).multipliedReportingOverflow(by: times)
        let (end, isTooLarge) = offset.addingReportingOverflow(each)
        let isCountTooLarge = count > Int.max / MemoryLayout<Element>.stride
        bytes = isCountTooLarge || isEachTooLarge || isTooLarge || end > Int.max - 63 ? Int.max : (end + 63) & ~63
        return Place(offset: offset)
    }
}
