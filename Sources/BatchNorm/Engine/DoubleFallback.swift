// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Channels whose coefficients are beyond their element type: they go through the loops of float64, a buffer at a time.
extension Sweep {
    @inline(never)
    @_optimize(size)
    func applyInDouble(_ channel: Int, _ extent: Extent, _ worker: Int) {
        guard let finalize, let channels else { return }
        inDouble(finalize.map(channels, channel), channel, extent, worker, isGradient: finalize.isGradient) {
            part, channels, _ in
            var tile = part.tile
            if mapsDy { tile.x = tile.dy }
            map.unsafelyUnwrapped(&tile, &channels)
            part.narrow()
        }
    }

    /// Sums the gradient through an activation once more for a block's extreme channels. The buffers have the same length
    /// on every machine, one after the other.
    @inline(never)
    @_optimize(size)
    func reduceInDouble(
        _ range: Range<Int>, _ extent: Extent, _ partial: ChannelArrays.Partial, _ worker: Int
    ) {
        guard case .gradientSums(let means, _) = reduction, let finalize else { return }
        var channel = arrays.firstExtreme(range)
        while channel < range.upperBound {
            let index = channel - range.lowerBound
            partial.pivot[index] = means[channel]
            partial.first[index] = 0
            partial.second[index] = 0
            inDouble(finalize.argument(channel), channel, extent, worker, isGradient: true) { part, channels, sums in
                var tile = part.tile
                channels.pivot = UnsafePointer(partial.pivot + index)
                channels.first = sums
                channels.second = sums + 1
                kernels.pointee.activated_sums(&tile, &channels)
                partial.first[index] += sums[0]
                partial.second[index] += sums[1]
            }
            channel = arrays.firstExtreme(channel + 1..<range.upperBound)
        }
    }

    /// Buffer by buffer, with the coefficients of the channel's line, and room for two sums.
    private func inDouble(
        _ channelMap: ChannelMap, _ channel: Int, _ extent: Extent, _ worker: Int, isGradient: Bool,
        _ body: (WidenedTile, inout kernel_channels, UnsafeMutablePointer<Double>) -> Void
    ) {
        let tile = tile(channel..<channel + 1, extent, isRows: false, rowsPerRun: 1)
        let memory = arrays.buffers(worker)
        let coefficients = WidenedTile.coefficients(memory)
        if channelMap.argument != nil {
            _ = coefficients.setArgument(channelMap, 0, Double.self)
            coefficients.setGain(channelMap.gain, 0, Double.self)
        }
        _ = coefficients.set(channelMap, isGradient: isGradient, 0, Double.self)
        var channels = coefficients.at(0)
        for run in 0..<tile.runs {
            for start in stride(from: 0, to: tile.length, by: WidenedTile.capacity) {
                let count = min(WidenedTile.capacity, tile.length - start)
                body(
                    WidenedTile(tile, run: run, start: start, count: count, memory), &channels, WidenedTile.sums(memory)
                )
            }
        }
    }
}
