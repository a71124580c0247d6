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
    private var channels = 0
    private(set) var coefficients = Coefficients()

    init() {}

    init(_ geometry: Geometry, slots: Int, _ thread: UnsafeMutablePointer<ThreadState>) throws(Failure) {
        let doubles = (3 + 3 * slots).multipliedReportingOverflow(by: geometry.channels)
        let bytes = doubles.partialValue.multipliedReportingOverflow(by: 8)
        let coefficientBytes = Coefficients.count * geometry.channels * geometry.elementSize
        let (total, tooMany) = bytes.partialValue.addingReportingOverflow(coefficientBytes)
        let memory = try thread.pointee.reserve(doubles.overflow || bytes.overflow || tooMany ? Int.max : total)
        channels = geometry.channels
        first = memory.assumingMemoryBound(to: Double.self)
        second = first.map { $0 + geometry.channels }
        rest = second.map { $0 + geometry.channels }
        partials = rest.map { $0 + geometry.channels }
        coefficients = Coefficients(memory + bytes.partialValue, geometry)
    }

    /// A slot's arrays from a channel on.
    func partial(_ slot: Int, _ channel: Int) -> Partial {
        let base = partials.unsafelyUnwrapped + (3 * slot * channels + channel)
        return Partial(centre: base, first: base + channels, second: base + 2 * channels)
    }

    struct Partial {
        let centre: UnsafeMutablePointer<Double>
        let first: UnsafeMutablePointer<Double>
        let second: UnsafeMutablePointer<Double>
    }
}

/// The coefficients of a map: an array per coefficient, in the element type.
struct Coefficients {
    static var count: Int { 7 }

    private var base: UnsafeMutableRawPointer?
    /// Bytes of an array and of an element.
    private var pitch = 0
    private var size = 0

    init() {}

    fileprivate init(_ base: UnsafeMutableRawPointer, _ geometry: Geometry) {
        self.base = base
        size = geometry.elementSize
        pitch = geometry.channels * size
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
    func setScale<T: Real>(_ scale: T, _ channel: Int) { array(2, T.self)[channel] = scale }
    func setShift<T: Real>(_ shift: T, _ channel: Int) { array(3, T.self)[channel] = shift }
    func setGradientMean<T: Real>(_ mean: Double, _ channel: Int, _: T.Type) { setTwoTerm(mean, 0, 4, channel, T.self) }
    func setSlope<T: Real>(_ slope: T, _ channel: Int) { array(6, T.self)[channel] = slope }

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
