// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Bytes that the caches of the first processor hold, as the kernel tells; sysconf() tells those of the host to a guest.
/// They decide what is done when, never a bit of the results.
struct Caches {
    /// A processor's own.
    let first: Int
    let second: Int
    /// The last one, which processors share.
    let last: Int
    /// True if a guest with few processors is told of the last cache of a machine with many.
    let isTooLargeToBelieve: Bool

    /// More than any machine has for each of its processors: 32 MB are made for one, and 96 MB for eight.
    private static let mostPerProcessor = 64 << 20

    init() {
        let first = Caches.kilobytes("/sys/devices/system/cpu/cpu0/cache/index0/size")
        let second = Caches.kilobytes("/sys/devices/system/cpu/cpu0/cache/index2/size")
        let third = Caches.kilobytes("/sys/devices/system/cpu/cpu0/cache/index3/size")
        // Where nothing is told, the smallest that were made in this century's second decade.
        self.first = (first ?? 32) << 10
        self.second = (second ?? 256) << 10
        last = third.map { $0 << 10 } ?? 4 * self.second
        isTooLargeToBelieve = last / Caches.online() > Caches.mostPerProcessor
    }

    /// Bytes of a tensor that is still in a cache when all of them have been walked through: its share of half of the last
    /// one. A last cache that other guests fill, too, takes lines in no faster than memory does: then the share is of twice
    /// the threads' own, or all of that for an output that is written `slowly`, between reductions (benchmarks/NOTES.md).
    func keeping(oneOf tensors: Int, threads: Int, slowly: Bool) -> Int {
        let share = last / 2 / tensors
        return isTooLargeToBelieve ? min(share, 2 * second * threads / (slowly ? 1 : tensors)) : share
    }

    private static func kilobytes(_ path: StaticString) -> Int? {
        Environment.read(path) { Environment.number($0, end: CChar(UInt8(ascii: "K"))) }
    }

    /// Processors that the machine shows: "0-1". A list with gaps is one of many.
    private static func online() -> Int {
        let newline = CChar(UInt8(ascii: "\n"))
        let highest = Environment.read("/sys/devices/system/cpu/online") { text -> Int? in
            let dash = strchr(text, Int32(UInt8(ascii: "-")))
            return Environment.number(dash.map { UnsafePointer($0) + 1 } ?? text, end: newline)
        }
        return (highest ?? Environment.mostThreads) + 1
    }
}
