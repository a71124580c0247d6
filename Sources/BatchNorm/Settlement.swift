// SPDX-License-Identifier: Apache-2.0
import CKernels

/// What follows per channel from its reduction, or from what the caller gave instead: results, running statistics, and
/// the coefficients of the map.
enum Settlement {
    /// Before it is known.
    case unknown
    /// In memory of the thread's, as is the sweep: a tag beside structures of several sizes would lie in what is padding of
    /// some, which memcheck takes for uninitialised.
    case forward(UnsafePointer<ForwardSettlement>)
    case sourced(UnsafePointer<SourcedSettlement>)
    case backward(UnsafePointer<BackwardSettlement>)
    /// Nothing is left to be found out: a line for each channel, or what a combination has.
    case settled(UnsafePointer<Line>)
    case combined(UnsafePointer<Combined>)

    @inline(never)
    func settle(_ sweep: borrowing Sweep, _ range: Range<Int>) {
        // Parameters are nearly always of the type that is computed with: their loops know it.
        let isUsual = sweep.geometry.parameter == sweep.geometry.number
        switch (sweep.geometry.number, isUsual) {
        case (KERNEL_FLOAT32, true): settle(Float.self, Float.self, sweep, range)
        case (KERNEL_FLOAT32, false): settle(Float.self, AnyElement.self, sweep, range)
        case (_, true): settle(Double.self, Double.self, sweep, range)
        case (_, false): settle(Double.self, AnyElement.self, sweep, range)
        }
    }

    private func settle<T: Real, A: Access>(_: T.Type, _: A.Type, _ sweep: borrowing Sweep, _ range: Range<Int>) {
        switch self {
        case .unknown: break
        case .forward(let place):
            // A local copy: the compiler cannot know that stores do not change it, and would load it for each channel (7 ns).
            let forward = place.pointee
            for channel in range {
                Settlement.record(forward.settle(A.self, sweep, channel), false, T.self, sweep, channel)
            }
        case .sourced(let sourced):
            for channel in range {
                Settlement.record(sourced.pointee.settle(sweep, channel), false, T.self, sweep, channel)
            }
        case .settled(let lines):
            for channel in range { Settlement.record(lines[channel], false, T.self, sweep, channel) }
        case .combined(let combined):
            if sweep.geometry.count == 0 { return }
            for channel in range {
                sweep.arrays.coefficients.set(combined[channel], channel)
                sweep.arrays.extremes[channel] = 0
            }
        case .backward(let backward):
            let isGradient = !backward.pointee.frozen
            if let count = backward.pointee.usualCount(sweep) {
                let (dy, dyCentred) = (sweep.arrays.first, sweep.arrays.second)
                for channel in range {
                    let line = backward.pointee.settleUsual(
                        A.self, count, dy: dy[channel], dyCentred: dyCentred[channel], channel)
                    Settlement.record(line, isGradient, T.self, sweep, channel)
                }
            } else {
                for channel in range {
                    let line = backward.pointee.settle(sweep, channel)
                    Settlement.record(line, isGradient, T.self, sweep, channel)
                    if sweep.epilogue != nil { Settlement.recordArgument(line, T.self, sweep, channel) }
                }
            }
        }
    }

    @inline(__always)
    private static func record<T: Real>(
        _ line: Line, _ isGradient: Bool, _: T.Type, _ sweep: borrowing Sweep, _ channel: Int
    ) {
        if sweep.map == nil || sweep.geometry.count == 0 { return }
        let arrays = sweep.arrays
        let isExpressed = arrays.coefficients.set(line, isGradient: isGradient, channel, T.self)
        arrays.extremes[channel] = isExpressed ? 0 : 1
    }

    private static func recordArgument<T: Real>(
        _ line: Line, _: T.Type, _ sweep: borrowing Sweep, _ channel: Int
    ) {
        let coefficients = sweep.arrays.coefficients
        coefficients.setGain(line.gain, channel, T.self)
        if !coefficients.setArgument(line, channel, T.self) { sweep.arrays.extremes[channel] = 1 }
    }

    /// The same in double, for a buffer of one channel.
    static func fill(_ coefficients: Coefficients, _ line: Line) {
        _ = coefficients.setArgument(line, 0, Double.self)
        coefficients.setGain(line.gain, 0, Double.self)
    }

    /// What a reduction takes of a channel's argument.
    func argument(_ channel: Int) -> Line {
        guard case .backward(let backward) = self else { return Line(scale: 1) }
        return backward.pointee.argument(channel)
    }

    /// Before the reduction: what it takes of an activation's argument.
    @inline(never)
    func prepare(_ sweep: borrowing Sweep) {
        guard case .backward(let backward) = self else { return }
        for channel in 0..<sweep.geometry.channels {
            let line = backward.pointee.argument(channel)
            sweep.arrays.extremes[channel] = 0
            if sweep.geometry.number == KERNEL_FLOAT32 {
                Settlement.recordArgument(line, Float.self, sweep, channel)
            } else {
                Settlement.recordArgument(line, Double.self, sweep, channel)
            }
        }
    }

    /// Whether the map is the gradient through the statistics, and not a normalization.
    var isGradient: Bool {
        if case .backward(let backward) = self { !backward.pointee.frozen } else { false }
    }

    /// What the map of a channel is, once it is settled.
    func line(_ sweep: borrowing Sweep, _ channel: Int) -> Line {
        switch self {
        case .forward(let forward):
            forward.pointee.line(AnyElement.self, channel, forward.pointee.known(AnyElement.self, sweep, channel))
        case .sourced(let sourced): sourced.pointee.line(channel)
        case .backward(let backward): backward.pointee.line(channel, backward.pointee.known(sweep, channel))
        case .settled(let lines): lines[channel]
        case .combined, .unknown: Line(scale: 1)
        }
    }
}
