// SPDX-License-Identifier: Apache-2.0
import CKernels

/// What a sweep reduces each channel to.
enum Reduction {
    /// first = mean(x), second = Σ(x − mean)²
    case moments
    /// first = Σdy, second = Σdy · (x − mean), about the means given
    case gradientSums(mean: UnsafePointer<Double>)
}

extension Sweep {
    /// One block of some channels, into a slot of the partial results.
    @inline(never)
    func reduce(_ reduction: Reduction, _ block: Int, _ range: Range<Int>, slot: Int) {
        var tile = tile(range, geometry.blocks[block])
        let partial = arrays.partial(slot, range.lowerBound)
        var channels = kernel_channels()
        channels.first = partial.first
        channels.second = partial.second
        switch reduction {
        case .moments:
            if geometry.element == KERNEL_FLOAT32 {
                choosePivots(Float.self, tile, partial.centre)
            } else {
                choosePivots(Double.self, tile, partial.centre)
            }
            channels.centre = UnsafePointer(partial.centre)
            kernels.deviation_sums(&tile, &channels)
        case .gradientSums(let mean):
            channels.centre = mean + range.lowerBound
            kernels.gradient_sums(&tile, &channels)
        }
    }

    /// A reduced block joins what the blocks before it gave. They come in order, on any schedule.
    @inline(never)
    func fold(_ reduction: Reduction, _ block: Int, _ range: Range<Int>, slot: Int) {
        let partial = arrays.partial(slot, range.lowerBound)
        let first = arrays.first.unsafelyUnwrapped + range.lowerBound
        let second = arrays.second.unsafelyUnwrapped + range.lowerBound
        switch reduction {
        case .moments:
            let rest = arrays.rest.unsafelyUnwrapped + range.lowerBound
            let (own, before) = geometry.blocks.values(block)
            for index in 0..<range.count {
                let moments = Moments(
                    count: Double(own), pivot: partial.centre[index], sum: partial.first[index],
                    squares: partial.second[index])
                let sofar = Moments(count: Double(before), mean: first[index], rest: rest[index], m2: second[index])
                let merged = sofar.merged(with: moments)
                first[index] = merged.mean
                rest[index] = merged.rest
                second[index] = merged.m2
            }
        case .gradientSums:
            for index in 0..<range.count {
                first[index] = (block == 0 ? 0 : first[index]) + partial.first[index]
                second[index] = (block == 0 ? 0 : second[index]) + partial.second[index]
            }
        }
    }
}
