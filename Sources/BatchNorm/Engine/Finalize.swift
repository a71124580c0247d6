// SPDX-License-Identifier: Apache-2.0
import CKernels

/// The per-channel step between reduce and map: it turns sums, or statistics that the caller passed, into outputs and into
/// the coefficients of the map. A sweep knows no more of it than these functions and the structure that they work on.
///
/// C functions, as there is no memory to be had for closures. They take the structure, a ChannelStep, and channels.
struct Finalize {
    let structure: UnsafeRawPointer
    /// True if the map is the gradient through the statistics, and not a normalization.
    var isGradient = false
    /// Writes outputs and coefficients of the channels from one to another.
    let run: @convention(c) (_ structure: UnsafeRawPointer, _ step: UnsafeRawPointer, Int, Int) -> Void
    /// Writes the map of one channel, once it is finalized.
    let map:
        @convention(c) (_ structure: UnsafeRawPointer, _ step: UnsafeRawPointer, Int, UnsafeMutableRawPointer) -> Void
    /// Writes the map with the argument that a reduction needs of an activation.
    var argument: (@convention(c) (_ structure: UnsafeRawPointer, Int, UnsafeMutableRawPointer) -> Void)?
}

extension Finalize {
    @inline(__always)
    func run(_ step: UnsafePointer<ChannelStep>, _ channels: Range<Int>) {
        run(structure, step, channels.lowerBound, channels.upperBound)
    }

    func map(_ step: UnsafePointer<ChannelStep>, _ channel: Int) -> ChannelMap {
        var map = ChannelMap(scale: 1)
        self.map(structure, step, channel, &map)
        return map
    }

    func argument(_ channel: Int) -> ChannelMap {
        var map = ChannelMap(scale: 1)
        argument?(structure, channel, &map)
        return map
    }

    /// Before the reduction: the coefficients of an activation's argument.
    @inline(never)
    func prepare(_ step: UnsafePointer<ChannelStep>, _ channels: Int) {
        if argument == nil { return }
        let step = step.pointee
        for channel in 0..<channels {
            step.arrays.extremes[channel] = 0
            if step.number == .float32 {
                step.recordArgument(argument(channel), Float.self, channel)
            } else {
                step.recordArgument(argument(channel), Double.self, channel)
            }
        }
    }
}

/// The state of a sweep's channels between reduce and map: sums on one side, coefficients on the other.
struct ChannelStep {
    let arrays: ChannelArrays
    let kernels: UnsafePointer<kernel_table>
    /// The type of the coefficients, and that of the parameters.
    let number: kernel_element
    let parameter: kernel_element
    /// Values per channel, or the sum of their weights.
    let values: Double
    /// True if the tensors have no elements, if there is a map, and if its loops have an epilogue.
    let isEmpty: Bool
    let isMapped: Bool
    let hasEpilogue: Bool

    static func at(_ step: UnsafeRawPointer) -> UnsafePointer<ChannelStep> {
        step.assumingMemoryBound(to: ChannelStep.self)
    }

    /// So many channels of a range as fill vectors, which have loops of their own where all is of float32.
    @inline(__always)
    func vectors(_ channels: Range<Int>) -> Int {
        isMapped && !isEmpty && number == .float32 && parameter == number ? kernels.pointee.vectors(channels.count) : 0
    }

    /// The moments that a reduction found; an empty batch has none.
    @inline(__always)
    func moments(_ channel: Int) -> Moments {
        if isEmpty || values == 0 { return .empty }
        return Moments(
            count: values, mean: arrays.first[channel], meanTail: arrays.meanTails[channel], m2: arrays.second[channel])
    }

    /// Writes a channel's coefficients, and marks it as extreme if their type cannot express them.
    @inline(__always)
    func record<T: Real>(_ map: ChannelMap, isGradient: Bool, _: T.Type, _ channel: Int) {
        if !isMapped || isEmpty { return }
        let isExpressed = arrays.coefficients.set(map, isGradient: isGradient, channel, T.self)
        arrays.extremes[channel] = isExpressed ? 0 : 1
    }

    func recordArgument<T: Real>(_ map: ChannelMap, _: T.Type, _ channel: Int) {
        arrays.coefficients.setGain(map.gain, channel, T.self)
        if !arrays.coefficients.setArgument(map, channel, T.self) { arrays.extremes[channel] = 1 }
    }
}

/// A structure that finalizes channels. Parameters are nearly always of the type that is computed with, which its loop then
/// knows; `A` is how it reads and writes them.
protocol ChannelFinalizer {
    func run<T: Real, A: Access>(_: T.Type, _: A.Type, _ step: ChannelStep, _ channels: Range<Int>)
}

extension ChannelFinalizer {
    @inline(__always)
    static func run(_ structure: UnsafeRawPointer, _ step: UnsafeRawPointer, _ first: Int, _ end: Int) {
        let finalizer = structure.assumingMemoryBound(to: Self.self)
        let step = ChannelStep.at(step).pointee
        switch (step.number, step.parameter == step.number) {
        case (.float32, true): finalizer.pointee.run(Float.self, Float.self, step, first..<end)
        case (.float32, false): finalizer.pointee.run(Float.self, AnyElement.self, step, first..<end)
        case (_, true): finalizer.pointee.run(Double.self, Double.self, step, first..<end)
        case (_, false): finalizer.pointee.run(Double.self, AnyElement.self, step, first..<end)
        }
    }

    static func at(_ structure: UnsafeRawPointer) -> UnsafePointer<Self> {
        structure.assumingMemoryBound(to: Self.self)
    }
}

extension UnsafeMutableRawPointer {
    /// Where a function of Finalize writes a map.
    func write(_ map: ChannelMap) { assumingMemoryBound(to: ChannelMap.self).pointee = map }
}
