// SPDX-License-Identifier: Apache-2.0
import XCTest

@testable import BatchNorm

/// The partition that every reduction is built on.
final class BlocksTests: XCTestCase {
    /// The blocks of a channel cover each of its values once, in order; rows side by side come out even.
    func testBlocksCoverEveryValueOnce() {
        for outer in [0, 1, 2, 7, 1023, 1024, 1025, 4100, 70_001] {
            for inner in [0, 1, 2, 49, 8192, 8193, 16384, 16385, 50_000] where outer * inner < 1 << 22 {
                for (channels, dense) in [(1, true), (3, true), (3, false), (24, true), (2048, true)] {
                    let blocks = Blocks(
                        outer: outer, channels: channels, inner: inner, inputs: 1, dense: dense)
                    var next = 0
                    for block in 0..<blocks.count {
                        let (outerRange, innerRange) = blocks[block]
                        let (own, before) = blocks.values(block)
                        XCTAssertEqual(own, outerRange.count * innerRange.count)
                        XCTAssertGreaterThan(own, 0)
                        XCTAssertEqual(before, next, "block \(block) of \(outer) x \(inner)")
                        XCTAssertTrue(innerRange == 0..<inner || outerRange.count == 1)
                        XCTAssertEqual(outerRange.count % blocks.columns(of: block).rowsPerRun, 0)
                        next += own
                    }
                    XCTAssertEqual(next, outer * inner)
                }
            }
        }
    }

    /// Rows side by side fill whole vectors, and no more rows than that takes.
    func testRowsAbreast() {
        for channels in 1...512 {
            for elements in [1, 512] {
                let rows = Blocks.rowsPerRun(channels, toFill: elements)
                XCTAssertEqual(rows * channels % 16, 0)
                XCTAssertGreaterThanOrEqual(rows * channels, elements)
                let fewer = (1..<rows).first { $0 * channels % 16 == 0 && $0 * channels >= elements }
                XCTAssertNil(fewer, "\(channels) channels, \(elements) elements")
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
