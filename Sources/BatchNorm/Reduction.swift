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
    func reduce(_ reduction: Reduction, _ block: Int, _ range: Range<Int>, slot: Int, worker: Int) {
        let partial = arrays.partial(slot, range.lowerBound)
        let planes = tile(range, plan.blocks[block], isRows: geometry.inner == 1, abreast: 1)
        let centres = Centres(planes, partial.centre, geometry.number)
        switch reduction {
        case .moments:
            let isAbout0 = centres.choose()
            let values = values(block).own
            if values == 0 { return }
            let deviations = geometry.weights == nil ? kernels.pointee.deviation_sums : kernels.pointee.weighted_sums
            if isAbout0 && geometry.weights == nil {
                sum(kernels.pointee.power_sums, block, range, partial)
            } else {
                sumDeviations(deviations, block, range, partial)
            }
            if centres.reconsider(sums: partial.first, squares: partial.second, values: values) {
                sumDeviations(deviations, block, range, partial)
            }
        case .gradientSums(let mean, let inverseStd):
            // The centres are each channel's own affair; the loops differ in what they cost, not in a bit.
            let isAbout0 = centres.choose(mean + range.lowerBound, inverseStd + range.lowerBound)
            if reducesPassing {
                let clipped = isAbout0 && isClip ? kernels.pointee.clipped_products : nil
                sumDeviations(clipped ?? kernels.pointee.activated_sums, block, range, partial)
            } else if isAbout0 {
                sum(kernels.pointee.product_sums, block, range, partial)
            } else {
                sumDeviations(kernels.pointee.gradient_sums, block, range, partial)
            }
            if reducesPassing && arrays.firstExtreme(range) < range.upperBound {
                reduceInDouble(range, plan.blocks[block], partial, worker)
            }
        }
    }

    /// The sums of every column, then of each channel: about one centre, those of its columns are parts of the same sum.
    private func sum(_ loop: kernel_loop?, _ block: Int, _ range: Range<Int>, _ partial: ChannelArrays.Partial) {
        let abreast = plan.blocks.abreast(block)
        let spread = plan.blocks.spread
        var tile = tile(range, plan.blocks[block], isRows: plan.blocks.isRows, abreast: abreast)
        tile.x = tile.x.askingEarly(tile)
        tile.dy = tile.dy.askingEarly(tile)
        var channels = kernel_channels()
        if reducesPassing { channels = argument(range, abreast, partial) }
        channels.centre = UnsafePointer(partial.centre)
        channels.first = partial.first
        channels.second = partial.second
        loop?(&tile, &channels)
        partial.first.gather(range.count, spread: spread, abreast: abreast)
        partial.second.gather(range.count, spread: spread, abreast: abreast)
    }

    /// The coefficients of an activation's argument, for every column.
    private func argument(
        _ range: Range<Int>, _ abreast: Int, _ partial: ChannelArrays.Partial
    ) -> kernel_channels {
        let spread = plan.blocks.spread
        if spread * abreast == 1 { return arrays.coefficients.at(range.lowerBound) }
        if geometry.number == KERNEL_FLOAT32 {
            arrays.coefficients.repeatArgument(
                range, spread: spread, abreast: abreast, in: partial.argument, at: partial.column, Float.self)
        } else {
            arrays.coefficients.repeatArgument(
                range, spread: spread, abreast: abreast, in: partial.argument, at: partial.column, Double.self)
        }
        return partial.argument.at(partial.column)
    }

    /// The same of deviations, from centres that every column needs.
    private func sumDeviations(
        _ loop: kernel_loop?, _ block: Int, _ range: Range<Int>, _ partial: ChannelArrays.Partial
    ) {
        let abreast = plan.blocks.abreast(block)
        let spread = plan.blocks.spread
        partial.centre.lay(range.count, spread: spread, abreast: abreast)
        sum(loop, block, range, partial)
        for channel in 0..<range.count { partial.centre[channel] = partial.centre[channel * spread] }
    }

    /// A reduced block joins what the blocks before it gave. They come in order, on any schedule.
    @inline(never)
    func fold(_ reduction: Reduction, _ block: Int, _ range: Range<Int>, slot: Int) {
        let partial = arrays.partial(slot, range.lowerBound)
        let first = arrays.first + range.lowerBound
        let second = arrays.second + range.lowerBound
        switch reduction {
        case .moments:
            let rest = arrays.rest + range.lowerBound
            let (own, before) = values(block)
            if own == 0 { return }
            for index in 0..<range.count {
                let moments = Moments(
                    count: own, pivot: partial.centre[index], sum: partial.first[index],
                    squares: partial.second[index])
                let sofar = Moments(count: before, mean: first[index], rest: rest[index], m2: second[index])
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

extension kernel_operand {
    /// Of what a reduction reads it asks early for the same columns of the next band; for the same planes of the next run,
    /// and in the last one for the next planes of the first; and for what is a little further on in planes so long that a
    /// few of them are more than a first-level cache. Distances as measured, see benchmarks/NOTES.md.
    fileprivate func askingEarly(_ tile: kernel_tile) -> kernel_operand {
        var operand = self
        if tile.layout == KERNEL_ROWS {
            operand.ahead = tile.band * stride
            operand.last = operand.ahead
        } else if tile.length > 4096 {
            operand.ahead = 2048
            operand.last = 2048
        } else {
            operand.ahead = stride
            operand.last = tile.length > 1024 ? 512 : min(4, tile.stretches) * tile.pitch - (tile.runs - 1) * stride
        }
        return operand
    }
}

extension UnsafeMutablePointer<Double> {
    /// Values of channels, as so many columns each, in rows so many abreast.
    fileprivate func lay(_ channels: Int, spread: Int, abreast: Int) {
        var channel = channels - 1
        while spread > 1 && channel >= 0 {
            (self + channel * spread).update(repeating: self[channel], count: spread)
            channel -= 1
        }
        let bytes = channels * spread * MemoryLayout<Double>.size
        UnsafeMutableRawPointer(self).repeatFirst(bytes, upTo: abreast * bytes)
    }

    /// Sums of columns, added up channel by channel.
    fileprivate func gather(_ channels: Int, spread: Int, abreast: Int) {
        let width = channels * spread
        for row in 1..<abreast {
            for column in 0..<width { self[column] += self[row * width + column] }
        }
        if spread == 1 { return }
        for channel in 0..<channels {
            var sum = self[channel * spread]
            for column in 1..<spread { sum += self[channel * spread + column] }
            self[channel] = sum
        }
    }
}
