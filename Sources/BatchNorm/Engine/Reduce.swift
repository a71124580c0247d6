// SPDX-License-Identifier: Apache-2.0
import CKernels

/// The reduction of some channels, block by block.
extension Sweep {
    /// One block of some channels, into a slot of the partial results.
    @inline(never)
    func reduce(_ reduction: Reduction, _ block: Int, _ range: Range<Int>, slot: Int, worker: Int) {
        let partial = arrays.partial(slot, range.lowerBound)
        let planes = tile(range, plan.blocks[block], isRows: geometry.inner == 1, rowsPerRun: 1)
        let pivots = Pivots(planes, partial.pivot, geometry.number, kernels)
        switch reduction {
        case .moments:
            let isAbout0 = pivots.choose()
            let values = values(block).own
            if values == 0 { return }
            let deviations = geometry.weights == nil ? kernels.pointee.deviation_sums : kernels.pointee.weighted_sums
            if isAbout0 && geometry.weights == nil {
                sum(kernels.pointee.power_sums, block, range, partial)
            } else {
                sumDeviations(deviations, block, range, partial)
            }
            if pivots.recentre(sums: partial.first, squares: partial.second, values: values) {
                sumDeviations(deviations, block, range, partial)
            }
        case .gradientSums(let mean, let inverseStd):
            // The pivots are each channel's own affair; the loops differ in what they cost, not in a bit.
            let isAbout0 = pivots.choose(mean + range.lowerBound, inverseStd + range.lowerBound)
            if reducesActivated {
                let clipped = isAbout0 && isClip ? kernels.pointee.clipped_products : nil
                sumDeviations(clipped ?? kernels.pointee.activated_sums, block, range, partial)
            } else if isAbout0 {
                sum(kernels.pointee.product_sums, block, range, partial)
            } else {
                sumDeviations(kernels.pointee.gradient_sums, block, range, partial)
            }
            if reducesActivated && arrays.firstExtreme(range) < range.upperBound {
                reduceInDouble(range, plan.blocks[block], partial, worker)
            }
        }
    }

    /// The sums of every column, then of each channel: the columns of a channel have one pivot, so that their sums add up.
    @inline(never)
    private func sum(_ loop: kernel_loop?, _ block: Int, _ range: Range<Int>, _ partial: ChannelArrays.Partial) {
        let columns = plan.blocks.columns(of: block)
        var tile = tile(range, plan.blocks[block], isRows: plan.blocks.isRows, rowsPerRun: columns.rowsPerRun)
        tile.x = tile.x.prefetching(tile, rows: plan.prefetchesRows)
        tile.dy = tile.dy.prefetching(tile, rows: plan.prefetchesRows)
        var channels = kernel_channels()
        if reducesActivated { channels = argument(range, columns, partial) }
        channels.pivot = UnsafePointer(partial.pivot)
        channels.first = partial.first
        channels.second = partial.second
        loop?(&tile, &channels)
        partial.first.gather(range.count, columns)
        partial.second.gather(range.count, columns)
    }

    /// The coefficients of an activation's argument, for every column.
    private func argument(
        _ range: Range<Int>, _ columns: Columns, _ partial: ChannelArrays.Partial
    ) -> kernel_channels {
        if !columns.areRepeated { return arrays.coefficients.at(range.lowerBound) }
        if geometry.number == .float32 {
            arrays.coefficients.repeatArgument(range, columns, in: partial.argument, at: partial.column, Float.self)
        } else {
            arrays.coefficients.repeatArgument(range, columns, in: partial.argument, at: partial.column, Double.self)
        }
        return partial.argument.at(partial.column)
    }

    /// The same of deviations, from pivots that every column needs.
    private func sumDeviations(
        _ loop: kernel_loop?, _ block: Int, _ range: Range<Int>, _ partial: ChannelArrays.Partial
    ) {
        let columns = plan.blocks.columns(of: block)
        partial.pivot.repeatEach(range.count, columns)
        sum(loop, block, range, partial)
        for channel in 0..<range.count { partial.pivot[channel] = partial.pivot[channel * columns.perChannel] }
    }

    /// The number of values of a channel, or their weights, in a block and in all blocks before it.
    private func values(_ block: Int) -> (own: Double, before: Double) {
        if geometry.weights != nil { return arrays.weights[block] }
        let (own, before) = plan.blocks.values(block)
        return (Double(own), Double(before))
    }

    /// A reduced block joins what the blocks before it gave. They come in order, on any schedule.
    @inline(never)
    func fold(_ reduction: Reduction, _ block: Int, _ range: Range<Int>, slot: Int) {
        let partial = arrays.partial(slot, range.lowerBound)
        let first = arrays.first + range.lowerBound
        let second = arrays.second + range.lowerBound
        switch reduction {
        case .moments:
            let meanTail = arrays.meanTails + range.lowerBound
            let (own, before) = values(block)
            if own == 0 { return }
            let vectors = kernels.pointee.vectors(range.count)
            var plain = kernel_fold(
                own: own, before: before, pivot: partial.pivot, sum: partial.first, squares: partial.second,
                mean: first, mean_tail: meanTail, m2: second)
            if vectors > 0 { kernels.pointee.fold_moments(&plain, vectors) }
            for index in vectors..<range.count {
                let moments = Moments(
                    count: own, pivot: partial.pivot[index], sum: partial.first[index],
                    squares: partial.second[index])
                let sofar = Moments(count: before, mean: first[index], meanTail: meanTail[index], m2: second[index])
                let merged = sofar.merged(with: moments)
                first[index] = merged.mean
                meanTail[index] = merged.meanTail
                second[index] = merged.m2
            }
        case .gradientSums(let means, _):
            let vectors = kernels.pointee.vectors(range.count)
            var plain = kernel_gradient_fold(
                is_first: block == 0 ? 1 : 0, pivot: partial.pivot, sum: partial.first, products: partial.second,
                mean: means + range.lowerBound, sum_dy: first, sum_dy_centred: second)
            if vectors > 0 { kernels.pointee.fold_gradient(&plain, vectors) }
            for index in vectors..<range.count {
                let mean = means[range.lowerBound + index]
                let sum = partial.first[index]
                let products = partial.second[index] - (partial.pivot[index] == mean ? 0 : mean * sum)
                first[index] = (block == 0 ? 0 : first[index]) + sum
                second[index] = (block == 0 ? 0 : second[index]) + products
            }
        }
    }
}

extension UnsafeMutablePointer<Double> {
    /// Repeats the values of channels for their columns.
    fileprivate func repeatEach(_ channels: Int, _ columns: Columns) {
        var channel = channels - 1
        while columns.perChannel > 1 && channel >= 0 {
            (self + channel * columns.perChannel).update(repeating: self[channel], count: columns.perChannel)
            channel -= 1
        }
        let bytes = channels * columns.perChannel * MemoryLayout<Double>.size
        UnsafeMutableRawPointer(self).repeatFirst(bytes, upTo: columns.rowsPerRun * bytes)
    }

    /// Adds up the sums of columns, channel by channel.
    fileprivate func gather(_ channels: Int, _ columns: Columns) {
        let width = channels * columns.perChannel
        for row in 1..<columns.rowsPerRun {
            for column in 0..<width { self[column] += self[row * width + column] }
        }
        if columns.perChannel == 1 { return }
        for channel in 0..<channels {
            var sum = self[channel * columns.perChannel]
            for column in 1..<columns.perChannel { sum += self[channel * columns.perChannel + column] }
            self[channel] = sum
        }
    }
}
