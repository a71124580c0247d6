// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Repeats each element, so that what is one per channel becomes one per column. Whole vectors are written, up to fifteen
/// elements too many, which the next channel overwrites.
@inline(__always)
func repeatEach<T: Arithmetic>(
    _: T.Type, _ source: UnsafeRawPointer, _ channels: Int, _ columns: Int, _ target: UnsafeMutableRawPointer
) {
    let source = source.assumingMemoryBound(to: T.self)
    var next = target.assumingMemoryBound(to: T.self)
    for channel in 0..<channels {
        let vector = SIMD16(repeating: source[channel])
        for column in stride(from: 0, to: columns, by: laneCount) { storeLanes(vector, to: next + column) }
        next += columns
    }
}
