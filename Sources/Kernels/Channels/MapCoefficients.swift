// SPDX-License-Identifier: Apache-2.0
import CKernels

/// The coefficients of sixteen channels' maps, written as Coefficients.set() in the engine writes those of one.
struct MapCoefficients {
    private let place: kernel_coefficients
    private let channel: Int

    @inline(__always)
    init(_ place: kernel_coefficients, _ channel: Int) {
        self.place = place
        self.channel = channel
    }

    /// Those of a normalization.
    @inline(__always)
    func set(mean: SIMD16<Double>, meanTail: SIMD16<Double>, scale: SIMD16<Double>, shift: SIMD16<Double>) {
        let rounded = Float.narrow(mean)
        let factor = Float.narrow(scale)
        let lost = finite((mean - Float.widen(rounded)) + meanTail)
        store(rounded, place.mean)
        store(factor, place.scale)
        store(Float.narrow(vector_equal(lost, .zero, shift, shift - lost * scale)), place.shift)
        record(
            Factors(scale: scale, slope: .zero, mean: rounded, dyMean: .zero),
            areOrdinary: Float.areNormal(factor) && Float.areWithinReach(rounded))
    }

    /// Those of the gradient through the statistics.
    @inline(__always)
    func set(mean: SIMD16<Double>, scale: SIMD16<Double>, dyMean: SIMD16<Double>, slope: SIMD16<Double>) {
        let rounded = Float.narrow(mean)
        let roundedOfDy = Float.narrow(dyMean)
        let (factor, factorOfX) = (Float.narrow(scale), Float.narrow(slope))
        store(rounded, place.mean)
        store(factor, place.scale)
        store(roundedOfDy, place.dy_mean)
        store(factorOfX, place.slope)
        let lost = finite((mean - Float.widen(rounded)) + SIMD16<Double>.zero)
        store(Float.narrow(lost * slope - finite(dyMean - Float.widen(roundedOfDy))), place.shift)
        record(
            Factors(scale: scale, slope: slope, mean: rounded, dyMean: roundedOfDy),
            areOrdinary: Float.areNormal(factor) && Float.areNormal(factorOfX) && Float.areWithinReach(rounded)
                && Float.areWithinReach(roundedOfDy))
    }

    @inline(__always)
    private func store(_ vector: SIMD16<Float>, _ array: UnsafeMutableRawPointer) {
        storeLanes(vector, to: array.assumingMemoryBound(to: Float.self) + channel)
    }

    /// Marks the channels whose coefficients cannot be expressed. Most vectors have none, which two comparisons show.
    @inline(__always)
    private func record(_ factors: Factors, areOrdinary: Bool) {
        let extremes = UnsafeMutableRawPointer(place.extremes + channel)
        if areOrdinary {
            extremes.storeBytes(of: SIMD16<UInt8>.zero, as: SIMD16<UInt8>.self)
        } else {
            factors.record(in: extremes.assumingMemoryBound(to: UInt8.self))
        }
    }
}

/// The coefficients that may not be expressed, with the numbers that they stand for.
private struct Factors {
    let scale: SIMD16<Double>
    let slope: SIMD16<Double>
    let mean: SIMD16<Float>
    let dyMean: SIMD16<Float>

    @inline(never)
    func record(in extremes: UnsafeMutablePointer<UInt8>) {
        for lane in 0..<laneCount {
            let isExpressed =
                Factors.isExpressed(scale[lane]) && Factors.isExpressed(slope[lane])
                && Factors.isWithinReach(mean[lane]) && Factors.isWithinReach(dyMean[lane])
            extremes[lane] = isExpressed ? 0 : 1
        }
    }

    /// Neither overflowed nor, digit by digit, underflowed.
    private static func isExpressed(_ value: Double) -> Bool {
        value == 0 || value - value != 0 || Float(value).isNormal
    }

    /// No finite element overflows when this is subtracted: half a unit of the largest rounds back to it.
    private static func isWithinReach(_ mean: Float) -> Bool { mean.magnitude <= Float.farthest || mean - mean != 0 }
}

extension Float {
    fileprivate static var farthest: Float { greatestFiniteMagnitude * ulpOfOne / 4 }

    @inline(__always)
    fileprivate static func areNormal(_ v: SIMD16<Float>) -> Bool {
        vector_all_within(magnitudes(v), leastNormalMagnitude, greatestFiniteMagnitude) != 0
    }

    @inline(__always)
    fileprivate static func areWithinReach(_ v: SIMD16<Float>) -> Bool {
        vector_all_within(magnitudes(v), 0, farthest) != 0
    }
}

extension Arithmetic {
    @inline(__always)
    static func magnitudes(_ v: SIMD16<Self>) -> SIMD16<Self> { above(v, .zero, v, .zero - v) }
}

/// An infinite number, less itself, is no number: 0 in its place.
@inline(__always)
func finite(_ v: SIMD16<Double>) -> SIMD16<Double> { vector_equal(v - v, .zero, v, .zero) }
