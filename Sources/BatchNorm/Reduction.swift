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
        var tile = tile(range, plan.blocks[block], abreast: plan.blocks.abreast(block))
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
            // Side by side, each row needs the means beside it.
            if tile.length > range.count && tile.layout == KERNEL_ROWS {
                for column in 0..<tile.length { partial.centre[column] = mean[column % range.count] }
                channels.centre = UnsafePointer(partial.centre)
            }
            kernels.gradient_sums(&tile, &channels)
        }
    }

    /// A reduced block joins what the blocks before it gave. They come in order, on any schedule.
    @inline(never)
    func fold(_ reduction: Reduction, _ block: Int, _ range: Range<Int>, slot: Int) {
        let partial = arrays.partial(slot, range.lowerBound)
        let first = arrays.first.unsafelyUnwrapped + range.lowerBound
        let second = arrays.second.unsafelyUnwrapped + range.lowerBound
        let (own, before) = plan.blocks.values(block)
        let abreast = plan.blocks.abreast(block)
        for row in 0..<abreast {
            let column = row * range.count
            switch reduction {
            case .moments:
                let rest = arrays.rest.unsafelyUnwrapped + range.lowerBound
                for index in 0..<range.count {
                    let moments = Moments(
                        count: Double(own / abreast), pivot: partial.centre[column + index],
                        sum: partial.first[column + index], squares: partial.second[column + index])
                    let sofar = Moments(
                        count: Double(before + own / abreast * row), mean: first[index], rest: rest[index],
                        m2: second[index])
                    let merged = sofar.merged(with: moments)
                    first[index] = merged.mean
                    rest[index] = merged.rest
                    second[index] = merged.m2
                }
            case .gradientSums:
                let isFirst = block == 0 && row == 0
                for index in 0..<range.count {
                    first[index] = (isFirst ? 0 : first[index]) + partial.first[column + index]
                    second[index] = (isFirst ? 0 : second[index]) + partial.second[column + index]
                }
            }
        }
    }
}
