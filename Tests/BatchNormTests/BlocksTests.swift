// SPDX-License-Identifier: Apache-2.0
import XCTest

@testable import BatchNorm

/// The partition that every reduction is built on.
final class BlocksTests: XCTestCase {
    /// The blocks of a channel cover each of its values once, in order.
    func testBlocksCoverEveryValueOnce() {
        for outer in [0, 1, 2, 7, 1023, 1024, 1025, 4100] {
            for inner in [0, 1, 2, 49, 8192, 8193, 16384, 16385, 50_000] where outer * inner < 1 << 22 {
                let blocks = Blocks(outer: outer, inner: inner)
                var next = 0
                for block in 0..<blocks.count {
                    let (outerRange, innerRange) = blocks[block]
                    let (own, before) = blocks.values(block)
                    XCTAssertEqual(own, outerRange.count * innerRange.count)
                    XCTAssertGreaterThan(own, 0)
                    XCTAssertEqual(before, next, "block \(block) of \(outer) x \(inner)")
                    XCTAssertTrue(innerRange == 0..<inner || outerRange.count == 1)
                    next += own
                }
                XCTAssertEqual(next, outer * inner)
            }
        }
    }

    /// Merging is exact where it can be, keeps an infinite mean, and takes empty parts for nothing.
    func testMerging() {
        let a = Moments(count: 2, mean: 1, m2: 2)
        let b = Moments(count: 6, mean: 5, m2: 4)
        let merged = a.merged(with: b)
        XCTAssertEqual([merged.count, merged.mean, merged.m2], [8, 4, 30])
        for (left, right) in [(a, Moments.empty), (Moments.empty, a)] {
            let same = left.merged(with: right)
            XCTAssertEqual([same.count, same.mean, same.m2], [2, 1, 2])
        }
        let infinite = Moments(count: 1, mean: .infinity, m2: .nan)
        XCTAssertEqual(a.merged(with: infinite).mean, .infinity)
        XCTAssertEqual(infinite.merged(with: a).mean, .infinity)
        XCTAssertTrue(infinite.merged(with: Moments(count: 1, mean: -.infinity, m2: .nan)).mean.isNaN)
    }
}
