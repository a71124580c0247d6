// SPDX-License-Identifier: Apache-2.0
import CKernels

/// What a sweep keeps per channel, in the working memory of the calling thread.
struct ChannelArrays {
    /// The two numbers that each channel is reduced to, and what the first of them rounded away.
    private(set) var first = UnsafeMutablePointer<Double>(bitPattern: 0)
    private(set) var second = UnsafeMutablePointer<Double>(bitPattern: 0)
    private(set) var rest = UnsafeMutablePointer<Double>(bitPattern: 0)
    /// The same of the blocks that are not folded yet, and what their reduction is centred on: an array per slot.
    private var partials = UnsafeMutablePointer<Double>(bitPattern: 0)
    /// Elements from one array to the next: whole vectors, as the loops read them.
    private var channels = 0
    private var partialChannels = 0
    private(set) var coefficients = Coefficients()

    init() {}

    /// `abreast`: rows side by side in a reduction, which has partials for each, and in a map, which has coefficients.
    init(
        _ geometry: Geometry, slots: Int, abreast: (reduction: Int, map: Int),
        _ thread: UnsafeMutablePointer<ThreadState>
    ) throws(Failure) {
        channels = wholeVectors(geometry.channels)
        partialChannels = wholeVectors(geometry.channels * abreast.reduction)
        let pitch = wholeVectors(geometry.channels * abreast.map) * geometry.elementSize
        let partial = (3 * slots).multipliedReportingOverflow(by: partialChannels)
        let doubles = partial.partialValue.addingReportingOverflow(3 * channels)
        let bytes = doubles.partialValue.multipliedReportingOverflow(by: 8)
        let total = bytes.partialValue.addingReportingOverflow(Coefficients.count * pitch)
        let tooMany = partial.overflow || doubles.overflow || bytes.overflow || total.overflow
        let memory = try thread.pointee.reserve(tooMany ? Int.max : total.partialValue)
        first = memory.assumingMemoryBound(to: Double.self)
        second = first.map { $0 + channels }
        rest = second.map { $0 + channels }
        partials = rest.map { $0 + channels }
        // What a loop reads beyond the last channel changes no result, but may not be a signalling NaN.
        memset(memory, 0, geometry.channels % 16 == 0 ? 0 : total.partialValue)
        coefficients = Coefficients(
            memory + bytes.partialValue, pitch: pitch, period: geometry.channels * geometry.elementSize,
            size: geometry.elementSize)
    }

    /// A slot's arrays from a channel on.
    func partial(_ slot: Int, _ channel: Int) -> Partial {
        let base = partials.unsafelyUnwrapped + (3 * slot * partialChannels + channel)
        return Partial(centre: base, first: base + partialChannels, second: base + 2 * partialChannels)
    }

    struct Partial {
        let centre: UnsafeMutablePointer<Double>
        let first: UnsafeMutablePointer<Double>
        let second: UnsafeMutablePointer<Double>
    }
}

private func wholeVectors(_ elements: Int) -> Int { (elements + 15) & ~15 }

/// The coefficients of a map: an array per coefficient, in the element type.
struct Coefficients {
    static var count: Int { 7 }

    private var base: UnsafeMutableRawPointer?
    /// Bytes from one array to the next, of an array's channels, and of an element.
    private var pitch = 0
    private var period = 0
    private var size = 0

    init() {}

    fileprivate init(_ base: UnsafeMutableRawPointer, pitch: Int, period: Int, size: Int) {
        self.base = base
        self.pitch = pitch
        self.period = period
        self.size = size
    }

    /// Repeats each array, so that it serves so many rows side by side.
    func lay(_ abreast: Int) {
        for index in 0..<Coefficients.count {
            let array = base.unsafelyUnwrapped + index * pitch
            for copy in 1..<abreast { (array + copy * period).copyMemory(from: array, byteCount: period) }
        }
    }

    /// As the loops take them, from a channel on.
    func at(_ channel: Int) -> kernel_channels {
        var channels = kernel_channels()
        guard let base else { return channels }
        let start = UnsafeRawPointer(base + channel * size)
        channels.mean_hi = start
        channels.mean_lo = start + pitch
        channels.scale = start + 2 * pitch
        channels.shift = start + 3 * pitch
        channels.dy_mean_hi = start + 4 * pitch
        channels.dy_mean_lo = start + 5 * pitch
        channels.slope = start + 6 * pitch
        return channels
    }

    func setMean<T: Real>(_ mean: Double, rest: Double = 0, _ channel: Int, _: T.Type) {
        setTwoTerm(mean, rest, 0, channel, T.self)
    }

    func setScale<T: Real>(_ scale: Double, _ channel: Int, _: T.Type) { array(2, T.self)[channel] = T(scale) }

    func setShift<T: Real>(_ shift: Double, _ channel: Int, _: T.Type) { array(3, T.self)[channel] = T(shift) }

    func setGradientMean<T: Real>(_ mean: Double, _ channel: Int, _: T.Type) { setTwoTerm(mean, 0, 4, channel, T.self) }

    func setSlope<T: Real>(_ slope: Double, _ channel: Int, _: T.Type) { array(6, T.self)[channel] = T(slope) }

    /// A sum of two doubles as one of two elements, the second what the first rounds away. Infinity is itself and 0.
    private func setTwoTerm<T: Real>(_ value: Double, _ rest: Double, _ index: Int, _ channel: Int, _: T.Type) {
        let hi = T(value)
        let lo = (value - Double(hi)) + rest
        array(index, T.self)[channel] = hi
        array(index + 1, T.self)[channel] = lo - lo == 0 ? T(lo) : 0
    }

    private func array<T: Real>(_ index: Int, _: T.Type) -> UnsafeMutablePointer<T> {
        (base.unsafelyUnwrapped + index * pitch).assumingMemoryBound(to: T.self)
    }
}
