// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Bytes that the caches of the first processor hold, as the kernel tells; sysconf() tells those of the host to a guest.
/// They decide what is done when, never a bit of the results.
struct Caches {
    /// A processor's own.
    let second: Int
    /// The last one, which processors share.
    let last: Int

    init() {
        let kilo = CChar(UInt8(ascii: "K"))
        let second = Environment.read("/sys/devices/system/cpu/cpu0/cache/index2/size") {
            Environment.number($0, end: kilo)
        }
        let third = Environment.read("/sys/devices/system/cpu/cpu0/cache/index3/size") {
            Environment.number($0, end: kilo)
        }
        // Where nothing is told, the smallest that were made in this century's second decade.
        self.second = (second ?? 256) << 10
        last = third.map { $0 << 10 } ?? 4 * self.second
    }
}
