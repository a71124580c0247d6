// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Channels whose coefficients are beyond their element type: they go through the loops of float64, a buffer at a time.
extension Sweep {
    @inline(never)
    func applyInDouble(_ channel: Int, _ extent: Blocks.Extent, _ worker: Int) {
        let line = settlement.line(self, channel)
        inDouble(line, channel, extent, worker, isGradient: settlement.isGradient) { part, channels, _ in
            var tile = part.tile
            if mapsDy { tile.x = tile.dy }
            map.unsafelyUnwrapped(&tile, &channels)
            part.narrow()
        }
    }

    /// Of sums over what passes an activation, those of a block's extreme channels once more. In buffers of the same length
    /// on every machine, one after the other.
    @inline(never)
    func reduceInDouble(
        _ range: Range<Int>, _ extent: Blocks.Extent, _ partial: ChannelArrays.Partial, _ worker: Int
    ) {
        guard case .gradientSums(let means, _) = reduction else { return }
        var channel = arrays.firstExtreme(range)
        while channel < range.upperBound {
            let index = channel - range.lowerBound
            partial.centre[index] = means[channel]
            partial.first[index] = 0
            partial.second[index] = 0
            inDouble(settlement.argument(channel), channel, extent, worker, isGradient: true) { part, channels, sums in
                var tile = part.tile
                channels.centre = UnsafePointer(partial.centre + index)
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
        _ line: Line, _ channel: Int, _ extent: Blocks.Extent, _ worker: Int, isGradient: Bool,
        _ body: (Widened, inout kernel_channels, UnsafeMutablePointer<Double>) -> Void
    ) {
        let tile = tile(channel..<channel + 1, extent, isRows: false, abreast: 1)
        let memory = arrays.buffers(worker)
        let coefficients = Widened.coefficients(memory)
        if line.argument != nil { Settlement.fill(coefficients, line) }
        _ = coefficients.set(line, isGradient: isGradient, 0, Double.self)
        var channels = coefficients.at(0)
        for run in 0..<tile.runs {
            for start in stride(from: 0, to: tile.length, by: Widened.capacity) {
                let count = min(Widened.capacity, tile.length - start)
                body(Widened(tile, run: run, start: start, count: count, memory), &channels, Widened.sums(memory))
            }
        }
    }
}
