// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Maps that are known before the sweep: one for each channel.
extension Finalize {
    init(_ maps: UnsafePointer<ChannelMap>) {
        self.init(
            structure: maps,
            run: { maps, step, first, end in
                let step = ChannelStep.at(step).pointee
                for channel in first..<end {
                    let map = Finalize.map(maps, channel)
                    if step.number == .float32 {
                        step.record(map, isGradient: false, Float.self, channel)
                    } else {
                        step.record(map, isGradient: false, Double.self, channel)
                    }
                }
            },
            map: { maps, _, channel, map in map.write(Finalize.map(maps, channel)) })
    }

    private static func map(_ maps: UnsafeRawPointer, _ channel: Int) -> ChannelMap {
        maps.assumingMemoryBound(to: ChannelMap.self)[channel]
    }

    /// Their coefficients are doubles, which express all of them, so that none is asked for again.
    init(_ maps: UnsafePointer<ThreeTensorMap>) {
        self.init(
            structure: maps,
            run: { maps, step, first, end in
                let step = ChannelStep.at(step).pointee
                if step.isEmpty { return }
                for channel in first..<end {
                    step.arrays.coefficients.set(maps.assumingMemoryBound(to: ThreeTensorMap.self)[channel], channel)
                    step.arrays.extremes[channel] = 0
                }
            },
            map: { _, _, _, _ in })
    }
}
