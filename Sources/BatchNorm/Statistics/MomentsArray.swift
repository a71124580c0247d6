// SPDX-License-Identifier: Apache-2.0
import CBatchNorm

/// The moments of a batch, channel by channel: an array for each of the four numbers.
struct MomentsArray {
    private let memory: UnsafeMutablePointer<Double>
    private let channels: Int

    init(_ memory: UnsafeMutablePointer<Double>, _ channels: Int) {
        self.memory = memory
        self.channels = channels
    }

    /// Without what rounding took of them, and that.
    var means: UnsafePointer<Double> { UnsafePointer(memory + channels) }
    var meanTails: UnsafePointer<Double> { UnsafePointer(memory + 2 * channels) }

    subscript(channel: Int) -> Moments {
        get {
            Moments(
                count: memory[channel], mean: memory[channels + channel], meanTail: memory[2 * channels + channel],
                m2: memory[3 * channels + channel])
        }
        nonmutating set {
            memory[channel] = newValue.count
            memory[channels + channel] = newValue.mean
            memory[2 * channels + channel] = newValue.meanTail
            memory[3 * channels + channel] = newValue.m2
        }
    }

    /// The first channel whose mean or variance is not finite.
    var firstNonfinite: Int? {
        for channel in 0..<channels {
            let moments = self[channel]
            if !moments.mean.isFinite || !moments.m2.isFinite { return channel }
        }
        return nil
    }

    /// Doubles that a batch takes.
    static func size(_ channels: Int) -> Int { 4 * channels }
}
