// SPDX-License-Identifier: Apache-2.0

/// Columns of rows that a reduction or a map takes as they lie in memory, though several of them are of one channel:
///
///     row 0   row 1   |a a a|b b b|c c c||a a a|b b b|c c c|      perChannel = 3: short planes of three values
///     row 2   row 3   |a a a|b b b|c c c||a a a|b b b|c c c|      rowsPerRun = 2: two rows fill the lanes of a vector
///
/// Arrays per channel are repeated for these columns, and sums of columns are added up.
struct Columns {
    var perChannel = 1
    var rowsPerRun = 1

    var areRepeated: Bool { perChannel * rowsPerRun > 1 }
    /// Columns of a run for so many channels.
    func count(_ channels: Int) -> Int { channels * perChannel * rowsPerRun }
}

extension UnsafeMutableRawPointer {
    /// The first bytes again and again, up to a multiple of them; in copies that grow.
    func repeatFirst(_ bytes: Int, upTo all: Int) {
        var done = bytes
        while done < all {
            let more = min(done, all - done)
            (self + done).copyMemory(from: self, byteCount: more)
            done += more
        }
    }
}
