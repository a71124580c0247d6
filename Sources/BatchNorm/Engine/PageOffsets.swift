// SPDX-License-Identifier: Apache-2.0

/// Processors compare the last twelve bits of addresses first: a load that comes after a store to the same offset of another
/// page waits until the store is done. Where rows are whole pages, and coefficients lie a few lines before the place in a page
/// to which their row is written, every load waits (up to 1.8 times the time of a call; benchmarks/offsets.py).
enum PageOffsets {
    static let page = 4096
    private static let line = 64
    /// Loads run on from the store before them by about so much.
    private static let reach = 4 * line

    /// Bytes by which arrays, `pitch` bytes apart, have to move on to keep clear of what is written at the same time.
    static func distance(of arrays: UnsafeRawPointer, pitch: Int, count: Int, from written: UnsafeRawPointer) -> Int {
        let candidates = stride(from: 0, to: page, by: line)
        return candidates.first { moved in
            (0..<count).allSatisfy {
                let behind = Int(bitPattern: written) &- Int(bitPattern: arrays + ($0 * pitch + moved))
                return !(1...reach).contains(behind & (page - 1))
            }
        } ?? 0
    }
}
