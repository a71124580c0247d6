// SPDX-License-Identifier: Apache-2.0
import CKernels

/// What the map does to one channel, in double:
///
///     y  = (x − mean) · scale + shift
///     dx = ((dy − dyMean) − (x − mean) · slope) · scale
struct Line {
    /// A sum of two terms, the second of them what the first rounded away.
    var mean = 0.0
    var rest = 0.0
    var scale: Double
    var shift = 0.0
    var dyMean = 0.0
    var slope = 0.0
    /// dy · gain stands for dy, where an epilogue's loops are at work; and their activation's argument is
    /// (x − mean) · scale + shift of its own.
    var gain = 1.0
    var argument: (scale: Double, shift: Double)?
}

/// What a combination of three tensors is, in one channel:
///
///     (dy − dyMean) · scale + (z − zMean) · gain + x_hat · slope + shift        x_hat = (x − mean) · inverseStd
struct Combined {
    var dyMean = 0.0
    var scale: Double
    var zMean = 0.0
    var gain = 0.0
    var mean: Double
    var inverseStd: Double
    var slope = 0.0
    var shift = 0.0
}

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

    /// Whether the element type can express them; the loops cannot be trusted with them otherwise.
    @inline(__always)
    func set<T: Real>(_ line: Line, isGradient: Bool, _ channel: Int, _: T.Type) -> Bool {
        let mean = T(line.mean)
        let dyMean = T(line.dyMean)
        let scale = T(line.scale)
        let slope = T(line.slope)
        let lost = Coefficients.finite((line.mean - Double(mean)) + line.rest)
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

    func set(_ combined: Combined, _ channel: Int) {
        store(combined.dyMean, .dyMean, channel)
        store(combined.scale, .scale, channel)
        store(combined.zMean, .zMean, channel)
        store(combined.gain, .gain, channel)
        store(combined.mean, .mean, channel)
        store(combined.inverseStd, .inverseStd, channel)
        store(combined.slope, .slope, channel)
        store(combined.shift, .shift, channel)
    }

    /// What stands for dy, times what dy is.
    func setGain<T: Real>(_ gain: Double, _ channel: Int, _: T.Type) { store(T(gain), .gain, channel) }

    /// The mean and the argument of an activation; whether the element type can express them.
    func setArgument<T: Real>(_ line: Line, _ channel: Int, _: T.Type) -> Bool {
        let mean = T(line.mean)
        let argument = line.argument ?? (scale: 0, shift: 0)
        let lost = Coefficients.finite((line.mean - Double(mean)) + line.rest)
        let scale = T(argument.scale)
        store(mean, .mean, channel)
        store(scale, .argumentScale, channel)
        store(T(lost == 0 ? argument.shift : argument.shift - lost * argument.scale), .argumentShift, channel)
        return Coefficients.isExpressed(argument.scale, scale) && Coefficients.isWithinReach(mean)
    }

    /// What a reduction takes of an activation's argument, for as many columns, in another's memory from an element on.
    func repeatArgument<T: Real>(
        _ channels: Range<Int>, spread: Int, abreast: Int, in other: Coefficients, at first: Int, _: T.Type
    ) {
        let width = channels.count * spread
        func lay(_ place: Place) {
            let source = (base + place.rawValue * pitch).assumingMemoryBound(to: T.self)
            let target = (other.base + place.rawValue * other.pitch).assumingMemoryBound(to: T.self) + first
            for channel in 0..<channels.count {
                (target + channel * spread).update(repeating: source[channels.lowerBound + channel], count: spread)
            }
            UnsafeMutableRawPointer(target).repeatFirst(width * size, upTo: abreast * width * size)
        }
        lay(.mean)
        lay(.argumentScale)
        lay(.argumentShift)
    }

    /// For rows of `spread` columns per channel, so many of them `abreast`: the first arrays, in another's memory
    /// from an element on. What follows the last row is the beginning of another one, so many elements `beyond` it.
    func lay(
        _ channels: Range<Int>, arrays: Int, spread: Int, abreast: Int, beyond: Int,
        by kernels: UnsafePointer<kernel_table>,
        in other: Coefficients, at first: Int
    ) {
        let element = size == 4 ? KERNEL_FLOAT32 : KERNEL_FLOAT64
        let width = channels.count * spread * size
        for index in 0..<arrays {
            let source = base + (index * pitch + channels.lowerBound * size)
            let target = other.base + (index * other.pitch + first * size)
            kernels.pointee.spread(element, source, channels.count, spread, target)
            target.repeatFirst(width, upTo: abreast * width)
            if abreast * width >= beyond * size {
                (target + abreast * width).copyMemory(from: target, byteCount: beyond * size)
            }
        }
    }

    private func store<T: Real>(_ value: T, _ place: Place, _ channel: Int) {
        (base + place.rawValue * pitch).assumingMemoryBound(to: T.self)[channel] = value
    }

    /// An infinite mean is itself and nothing.
    private static func finite(_ value: Double) -> Double { value - value == 0 ? value : 0 }

    /// Whether no finite element overflows when this is subtracted: half a unit of the largest rounds back to it.
    private static func isWithinReach<T: Real>(_ mean: T) -> Bool {
        mean.magnitude <= T.greatestFiniteMagnitude * T.ulpOfOne / 4 || mean - mean != 0
    }

    /// Neither overflowed nor, digit by digit, underflowed.
    private static func isExpressed<T: Real>(_ value: Double, _ element: T) -> Bool {
        value == 0 || value - value != 0 || element.isNormal
    }
}

extension UnsafeMutableRawPointer {
    /// The first bytes again and again, up to a multiple of them; in copies that grow.
    func repeatFirst(_ bytes: Int, upTo all: Int) {
        var done = bytes
        while done < all {
            let more = min(done, all - done)
            (self + done).copyMemory(from: self, byteCount: more)
            done += more
        }
    }
}
