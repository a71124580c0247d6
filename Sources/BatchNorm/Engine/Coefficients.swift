// SPDX-License-Identifier: Apache-2.0
import CKernels

/// The coefficients of a map as the loops take them: an array per coefficient, of the type that elements are computed
/// with. The mean is subtracted before anything is scaled, and what its rounding lost is made up for by the shift:
/// nothing cancels but what the real numbers cancel. The usual x · a + b loses as many digits as |mean| / std has.
struct Coefficients {
    /// The arrays in order: a normalization takes the first three, a gradient five, one with an epilogue all; and so does a
    /// combination, which has others for the last two, and all in double.
    private enum Place: Int {
        case mean, scale, shift, dyMean, slope, gain, argumentScale, argumentShift
        static var inverseStd: Place { argumentScale }
        static var zMean: Place { argumentShift }
    }

    static var count: Int { 8 }

    private let base: UnsafeMutableRawPointer
    /// Bytes from one array to the next, and of a coefficient.
    private let pitch: Int
    private let size: Int

    /// In memory for `count` arrays of so many elements.
    init(_ base: UnsafeMutableRawPointer, elements: Int, size: Int) {
        self.base = base
        pitch = elements * size
        self.size = size
    }

    /// Elements by which the first arrays, from one of their elements on, have to move to keep clear of rows that begin at one
    /// offset of a page.
    func distance(from out: UnsafeRawPointer, arrays: Int, at first: Int) -> Int {
        PageOffsets.distance(of: base + first * size, pitch: pitch, count: arrays, from: out) / size
    }

    /// As the loops take them, from a channel on.
    func at(_ channel: Int) -> kernel_channels {
        func array(_ place: Place) -> UnsafeRawPointer {
            UnsafeRawPointer(base + (place.rawValue * pitch + channel * size))
        }
        var channels = kernel_channels()
        channels.mean = array(.mean)
        channels.scale = array(.scale)
        channels.shift = array(.shift)
        channels.dy_mean = array(.dyMean)
        channels.slope = array(.slope)
        channels.gain = array(.gain)
        channels.u_scale = array(.argumentScale)
        channels.u_shift = array(.argumentShift)
        channels.invstd = array(.inverseStd)
        channels.z_mean = array(.zMean)
        return channels
    }

    /// The same to be written, by loops over channels.
    func writable(at channel: Int, extremes: UnsafeMutablePointer<UInt8>) -> kernel_coefficients {
        func array(_ place: Place) -> UnsafeMutableRawPointer { base + (place.rawValue * pitch + channel * size) }
        return kernel_coefficients(
            mean: array(.mean), scale: array(.scale), shift: array(.shift),
            dy_mean: array(.dyMean), slope: array(.slope), extremes: extremes + channel)
    }

    /// Writes the coefficients; true if the element type can express them. Otherwise the loops cannot be trusted with them.
    @inline(__always)
    func set<T: Real>(_ line: ChannelMap, isGradient: Bool, _ channel: Int, _: T.Type) -> Bool {
        let mean = T(line.mean)
        let dyMean = T(line.dyMean)
        let scale = T(line.scale)
        let slope = T(line.slope)
        let lost = Coefficients.finite((line.mean - Double(mean)) + line.meanTail)
        let lostOfDy = Coefficients.finite(line.dyMean - Double(dyMean))
        let shift = isGradient ? lost * line.slope - lostOfDy : lost == 0 ? line.shift : line.shift - lost * line.scale
        store(mean, .mean, channel)
        store(scale, .scale, channel)
        store(T(shift), .shift, channel)
        store(dyMean, .dyMean, channel)
        store(slope, .slope, channel)
        return Coefficients.isExpressed(line.scale, scale) && Coefficients.isExpressed(line.slope, slope)
            && Coefficients.isWithinReach(mean) && Coefficients.isWithinReach(dyMean)
    }

    func set(_ combined: ThreeTensorMap, _ channel: Int) {
        store(combined.dyMean, .dyMean, channel)
        store(combined.scale, .scale, channel)
        store(combined.zMean, .zMean, channel)
        store(combined.gain, .gain, channel)
        store(combined.mean, .mean, channel)
        store(combined.inverseStd, .inverseStd, channel)
        store(combined.slope, .slope, channel)
        store(combined.shift, .shift, channel)
    }

    /// The factor `gain` that multiplies dy.
    func setGain<T: Real>(_ gain: Double, _ channel: Int, _: T.Type) { store(T(gain), .gain, channel) }

    /// Writes the mean and the argument of an activation; true if the element type can express them.
    func setArgument<T: Real>(_ line: ChannelMap, _ channel: Int, _: T.Type) -> Bool {
        let mean = T(line.mean)
        let argument = line.argument ?? (scale: 0, shift: 0)
        let lost = Coefficients.finite((line.mean - Double(mean)) + line.meanTail)
        let scale = T(argument.scale)
        store(mean, .mean, channel)
        store(scale, .argumentScale, channel)
        store(T(lost == 0 ? argument.shift : argument.shift - lost * argument.scale), .argumentShift, channel)
        return Coefficients.isExpressed(argument.scale, scale) && Coefficients.isWithinReach(mean)
    }

    /// Repeats the argument's coefficients for the columns of some channels, in other arrays from an element on.
    func repeatArgument<T: Real>(
        _ channels: Range<Int>, _ columns: Columns, in other: Coefficients, at first: Int, _: T.Type
    ) {
        let width = channels.count * columns.perChannel
        func lay(_ place: Place) {
            let source = (base + place.rawValue * pitch).assumingMemoryBound(to: T.self) + channels.lowerBound
            let target = (other.base + place.rawValue * other.pitch).assumingMemoryBound(to: T.self) + first
            for channel in 0..<channels.count {
                (target + channel * columns.perChannel).update(repeating: source[channel], count: columns.perChannel)
            }
            UnsafeMutableRawPointer(target).repeatFirst(width * size, upTo: columns.rowsPerRun * width * size)
        }
        lay(.mean)
        lay(.argumentScale)
        lay(.argumentShift)
    }

    /// Repeats the first arrays for the columns of some channels, in other arrays from an element on. Behind the last row
    /// begins another one, of which so many elements are there, and a vector more that may be read.
    func repeatEach(
        _ channels: Range<Int>, arrays: Int, _ columns: Columns, beyond: Int, by kernels: UnsafePointer<kernel_table>,
        in other: Coefficients, at first: Int
    ) {
        let element: kernel_element = size == 4 ? .float32 : .float64
        let width = channels.count * columns.perChannel * size
        for index in 0..<arrays {
            let source = base + (index * pitch + channels.lowerBound * size)
            let target = other.base + (index * other.pitch + first * size)
            // A copy is faster than a store of a whole vector for each channel.
            if columns.perChannel == 1 {
                target.copyMemory(from: source, byteCount: width)
            } else {
                kernels.pointee.repeat_each(element, source, channels.count, columns.perChannel, target)
            }
            target.repeatFirst(width, upTo: columns.rowsPerRun * width + (beyond + 16) * size)
        }
    }

    private func store<T: Real>(_ value: T, _ place: Place, _ channel: Int) {
        (base + place.rawValue * pitch).assumingMemoryBound(to: T.self)[channel] = value
    }

    /// An infinite mean is itself and nothing.
    private static func finite(_ value: Double) -> Double { value.isFiniteByDifference ? value : 0 }

    /// True if no finite element overflows when this is subtracted: half a unit of the largest rounds back to it.
    private static func isWithinReach<T: Real>(_ mean: T) -> Bool {
        mean.magnitude <= T.greatestFiniteMagnitude * T.ulpOfOne / 4 || !mean.isFiniteByDifference
    }

    /// Neither overflowed nor, digit by digit, underflowed.
    private static func isExpressed<T: Real>(_ value: Double, _ element: T) -> Bool {
        value == 0 || !value.isFiniteByDifference || element.isNormal
    }
}
