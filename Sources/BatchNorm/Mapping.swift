// SPDX-License-Identifier: Apache-2.0
import CKernels

/// The map of some channels, by the loops and what they take for coefficients.
extension Sweep {
    /// No more channels at a time than have their coefficients in a first-level cache.
    @inline(never)
    func apply(_ channels: Range<Int>, _ extent: Blocks.Extent, worker: Int) {
        guard map != nil, !extent.outer.isEmpty, !extent.inner.isEmpty else { return }
        var next = channels.lowerBound
        while next < channels.upperBound {
            let end = min(next + plan.mapped, channels.upperBound)
            let extreme = arrays.firstExtreme(next..<end)
            if next < extreme { applyLoop(next..<extreme, extent, worker) }
            if extreme < end { applyInDouble(extreme, extent) }
            next = extreme < end ? extreme + 1 : end
        }
    }

    @inline(never)
    private func applyLoop(_ channels: Range<Int>, _ extent: Blocks.Extent, _ worker: Int) {
        let abreast = channels.count == geometry.channels ? plan.abreast : 1
        // As rows only if so many have a use for the coefficients that they are worth laying.
        let isRows = geometry.inner == 1 || (plan.mapsRows && extent.outer.count >= Plan.fewPlanes)
        var coefficients = arrays.coefficients.at(channels.lowerBound)
        if isRows && plan.spread * abreast > 1 {
            let laid = arrays.workspace(worker)
            arrays.coefficients.lay(
                channels, arrays: settlement?.isGradient == true ? 5 : 3, spread: plan.spread, abreast: abreast,
                by: kernels, in: laid)
            coefficients = laid.at(0)
        }
        let whole = extent.outer.upperBound - extent.outer.count % abreast
        applyLoop(channels, (extent.outer.lowerBound..<whole, extent.inner), isRows, abreast, &coefficients)
        applyLoop(channels, (whole..<extent.outer.upperBound, extent.inner), isRows, 1, &coefficients)
    }

    @inline(never)
    private func applyLoop(
        _ channels: Range<Int>, _ extent: Blocks.Extent, _ isRows: Bool, _ abreast: Int,
        _ coefficients: inout kernel_channels
    ) {
        if extent.outer.isEmpty { return }
        var tile = tile(channels, extent, isRows: isRows, abreast: abreast)
        if mapsDy { tile.x = tile.dy }
        map.unsafelyUnwrapped(&tile, &coefficients)
    }

    /// A channel whose coefficients are beyond its element type: value by value, in double.
    @inline(never)
    private func applyInDouble(_ channel: Int, _ extent: Blocks.Extent) {
        guard let settlement else { return }
        let line = settlement.line(self, channel)
        let tile = tile(channel..<channel + 1, extent, isRows: false, abreast: 1)
        if geometry.element == KERNEL_FLOAT32 {
            applyInDouble(Float.self, line, tile)
        } else {
            applyInDouble(Double.self, line, tile)
        }
    }

    private func applyInDouble<T: Real>(_: T.Type, _ line: Line, _ tile: kernel_tile) {
        func value(_ operand: kernel_operand, _ run: Int, _ index: Int) -> UnsafeMutablePointer<T> {
            operand.base.assumingMemoryBound(to: T.self) + (run * operand.stride + index)
        }
        for run in 0..<tile.runs {
            for index in 0..<tile.length {
                let result: Double
                if settlement.unsafelyUnwrapped.isGradient {
                    let dy = Double(value(tile.dy, run, index).pointee) - line.dyMean
                    let x = (Double(value(tile.x, run, index).pointee) - line.mean) - line.rest
                    result = (dy - x * line.slope) * line.scale
                } else {
                    let x = Double(value(mapsDy ? tile.dy : tile.x, run, index).pointee)
                    result = ((x - line.mean) - line.rest) * line.scale + line.shift
                }
                value(tile.out, run, index).pointee = T(result)
            }
        }
    }
}
