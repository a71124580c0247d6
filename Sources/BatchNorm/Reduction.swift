// SPDX-License-Identifier: Apache-2.0
import CKernels

/// What a sweep reduces each channel to.
enum Reduction {
    /// first = mean(x), second = Σ(x − mean)²
    case moments
    /// first = Σdy, second = Σdy · (x − mean), about the means given
    case gradientSums(mean: UnsafePointer<Double>, inverseStd: UnsafePointer<Double>)
}

extension Sweep {
    /// One block of some channels, into a slot of the partial results.
    @inline(never)
    func reduce(_ reduction: Reduction, _ block: Int, _ range: Range<Int>, slot: Int) {
        let abreast = plan.blocks.abreast(block)
        var tile = tile(range, plan.blocks[block], abreast: abreast)
        let partial = arrays.partial(slot, range.lowerBound)
        var channels = kernel_channels()
        channels.centre = UnsafePointer(partial.centre)
        channels.first = partial.first
        channels.second = partial.second
        func sum(_ loop: kernel_loop?) {
            for row in 1..<abreast { partial.centre.copy(range.count, to: row) }
            loop?(&tile, &channels)
            // About one centre, the sums of rows side by side are parts of the same sum.
            for row in 1..<abreast {
                partial.first.add(range.count, from: row)
                partial.second.add(range.count, from: row)
            }
        }
        switch reduction {
        case .moments:
            let centres = Centres(self.tile(range, plan.blocks[block], abreast: 1), partial.centre)
            sum(centres.choose() ? kernels.power_sums : kernels.deviation_sums)
            if centres.reconsider(
                sums: partial.first, squares: partial.second, values: plan.blocks.values(block).own)
            {
                sum(kernels.deviation_sums)
            }
        case .gradientSums(let mean, let inverseStd):
            let areZero = Centres.choose(geometry.element, range, mean, inverseStd, partial.centre)
            sum(areZero ? kernels.product_sums : kernels.gradient_sums)
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
            let (own, before) = plan.blocks.values(block)
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
        case .gradientSums(let means, _):
            for index in 0..<range.count {
                let mean = means[range.lowerBound + index]
                let sum = partial.first[index]
                let products = partial.second[index] - (partial.centre[index] == mean ? 0 : mean * sum)
                first[index] = (block == 0 ? 0 : first[index]) + sum
                second[index] = (block == 0 ? 0 : second[index]) + products
            }
        }
    }
}

extension UnsafeMutablePointer<Double> {
    /// The first elements once more, as a later row of so many.
    fileprivate func copy(_ count: Int, to row: Int) { (self + row * count).update(from: self, count: count) }

    /// Adds a later row of so many elements to the first.
    fileprivate func add(_ count: Int, from row: Int) {
        for index in 0..<count { self[index] += self[row * count + index] }
    }
}
