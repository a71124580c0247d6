// SPDX-License-Identifier: Apache-2.0
import CKernels
import Foundation
import XCTest

@testable import BatchNorm

/// Every loop, at every length up to several vectors, against its formula one element at a time; flush against guard
/// pages on either side, and with the same bits from every instruction set.
final class KernelTests: XCTestCase {
    func testFloatPlanes() { sweepLengths(Float.self, .planes) }
    func testFloatRows() { sweepLengths(Float.self, .rows) }
    func testDoublePlanes() { sweepLengths(Double.self, .planes) }
    func testDoubleRows() { sweepLengths(Double.self, .rows) }

    private func sweepLengths<T: TestElement>(_: T.Type, _ layout: kernel_layout) {
        for length in 1...70 {
            // More runs than a band of rows has; channels side by side in planes; gaps, and the lack of them; rows of which
            // each begins at the same place of a cache line, and planes that adjoin.
            let toLine = (16 - length % 16) % 16
            let own = layout == .rows ? (9, 1, toLine) : (3, 7, 0)
            for (runs, segments, gap) in [(1, 1, 0), (3, 7, 5), (17, 1, 0), own] {
                for side in [GuardedBuffer<T>.Side.before, .after] {
                    let channels = layout == .rows ? 1 : segments
                    let tile = Tile<T>(layout, runs: runs, segments: channels, length: length, gap: gap, side: side)
                    // Two vectors and every tail, where a loop is the same for whole vectors and for parts of one.
                    for loop in Tile<T>.loops where length <= 36 || !Tile<T>.isLong(loop) {
                        let kinds = loop.outputs != .sums ? Stores.allCases : [.ordinary]
                        for stores in kinds where !stores.takesPanels || (layout == .rows && Tile<T>.hasPanels(loop)) {
                            tile.check(loop, stores)
                        }
                    }
                }
            }
        }
    }
}

/// The arrays of coefficients in order. A combination has others for the last two.
enum Place: Int {
    case mean, scale, shift, dyMean, slope, gain, uScale, uShift
    static var invstd: Place { uScale }
    static var zMean: Place { uShift }
}

/// The coefficients of a channel.
struct ChannelCoefficients<Number> {
    let numbers: [Number]
    subscript(place: Place) -> Number { numbers[place.rawValue] }
}

/// The kinds of stores by which a map writes.
enum Stores: CaseIterable {
    case ordinary, aligned, streamed, panels, alignedPanels, streamedPanels

    var streams: Bool { self == .streamed || self == .streamedPanels }
    var aligns: Bool { self == .aligned || self == .alignedPanels }
    var takesPanels: Bool { self == .panels || self == .alignedPanels || self == .streamedPanels }
}

/// A tile of random values with what its channels need.
struct Tile<T: TestElement> {
    /// One element, and what its channel and its position have.
    struct Values {
        let x: T
        let dy: T
        let z: T
        let w: T
        let c: ChannelCoefficients<T>
        let wide: ChannelCoefficients<Double>
        /// x less the pivot.
        let d: Double

        var centred: T { x - c[.mean] }
        var normalized: T { centred * c[.scale] + c[.shift] }
        /// u, by the coefficients that a gradient has for it.
        var argument: T { (centred * c[.uScale] + c[.uShift]) + z }
        func gradient(_ g: T) -> T { (((g - c[.dyMean]) - centred * c[.slope]) + c[.shift]) * c[.scale] }
    }

    let layout: kernel_layout
    let runs: Int
    let segments: Int
    let length: Int
    let pitch: Int
    let stride: Int
    let seed: UInt64
    let x: GuardedBuffer<T>
    let dy: GuardedBuffer<T>
    let z: GuardedBuffer<T>
    let weights: GuardedBuffer<T>
    let out: GuardedBuffer<T>
    let pivot: GuardedBuffer<Double>
    let first: GuardedBuffer<Double>
    let second: GuardedBuffer<Double>
    let coefficients: [GuardedBuffer<T>]
    /// The coefficients of a loop that computes in double.
    let wide: [GuardedBuffer<Double>]
    /// The gain, and the pivot, that are as good as none.
    let ones: GuardedBuffer<T>
    let zeros: GuardedBuffer<Double>

    private var channels: Int { layout == .rows ? length : segments }

    init(
        _ layout: kernel_layout, runs: Int, segments: Int, length: Int, gap: Int, side: GuardedBuffer<T>.Side
    ) {
        self.layout = layout
        self.runs = runs
        self.segments = segments
        self.length = length
        pitch = length + gap
        stride = segments * (length + gap)
        let elements = (runs - 1) * stride + (segments - 1) * pitch + length
        // The engine's arrays end with a whole vector, and coefficients with another one.
        let channels = layout == .rows ? (length + 15) & ~15 : segments
        let doubleSide: GuardedBuffer<Double>.Side = side == .before ? .before : .after
        seed = UInt64(runs * 1000 + length)
        var generator = Generator(seed: seed)
        func values(_ count: Int) -> GuardedBuffer<T> {
            let buffer = GuardedBuffer<T>(count, guarded: side)
            for index in 0..<count { buffer.elements[index] = T(generator.normal()) }
            return buffer
        }
        x = values(elements)
        dy = values(elements)
        z = values(elements)
        weights = values(layout == .rows ? runs : runs * length)
        for index in weights.elements.indices { weights.elements[index] = max(0, weights.elements[index]) }
        out = values(elements)
        pivot = GuardedBuffer(channels, guarded: doubleSide)
        first = GuardedBuffer(channels, guarded: doubleSide)
        second = GuardedBuffer(channels, guarded: doubleSide)
        // A pivot is a value of the element type.
        for index in 0..<channels { pivot.elements[index] = Double(T(generator.normal())) }
        ones = GuardedBuffer(layout == .rows ? channels + 16 : channels, guarded: side)
        ones.elements.update(repeating: 1)
        zeros = GuardedBuffer(channels, guarded: doubleSide)
        zeros.elements.update(repeating: 0)
        let count = layout == .rows ? channels + 16 : channels
        coefficients = (0..<8).map { _ in values(count) }
        wide = (0..<8).map { _ in GuardedBuffer(count, guarded: doubleSide) }
        for buffer in wide { for index in 0..<count { buffer.elements[index] = generator.normal() } }
    }

    private func forEach(_ body: (_ index: Int, _ channel: Int, Values) -> Void) {
        for run in 0..<runs {
            for segment in 0..<segments {
                for column in 0..<length {
                    let index = run * stride + segment * pitch + column
                    let channel = layout == .rows ? column : segment
                    let weight = weights.elements[layout == .rows ? run : run * length + column]
                    let values = Values(
                        x: x.elements[index], dy: dy.elements[index], z: z.elements[index], w: weight,
                        c: ChannelCoefficients(numbers: coefficients.map { $0.elements[channel] }),
                        wide: ChannelCoefficients(numbers: wide.map { $0.elements[channel] }),
                        d: Double(x.elements[index]) - pivot.elements[channel])
                    body(index, channel, values)
                }
            }
        }
    }

    func sums(_ term: (Values) -> (Double, Double)) -> [T] {
        let channels = first.elements.count
        var sums = [Double](repeating: 0, count: 2 * channels)
        forEach { _, channel, values in
            let (a, b) = term(values)
            sums[channel] += a
            sums[channels + channel] += b
        }
        return sums.map { T($0) }
    }

    func values(_ formula: (Values) -> T) -> [T] {
        var result = Array(out.elements)
        forEach { index, _, values in result[index] = formula(values) }
        return result
    }

    func check(_ loop: Loop, _ stores: Stores) {
        let expected = loop.formula(self)
        let before = Array(out.elements)
        var bits: [UInt64]?
        for (name, table) in instructionSets {
            for index in out.elements.indices { out.elements[index] = before[index] }
            for buffer in [first, second] { buffer.elements.update(repeating: .nan) }
            run(loop, table, stores)
            let place =
                "\(loop.name) on \(name), \(T.self), \(layout), \(runs) x \(segments) x \(length), seed \(seed)"
            let found: [T]
            switch loop.outputs {
            case .elements:
                // Each value takes the same correctly rounded operations in the same order: no difference at all, and
                // nothing outside the tile is touched.
                found = Array(out.elements)
                XCTAssertEqual(found.map(\.bits), expected.map(\.bits), place)
            case .near:
                // An exponential, a quotient and a few products, each within a unit or two of numbers that may cancel to
                // a small one from terms below about a hundred.
                found = Array(out.elements)
                for (value, reference) in zip(found, expected) {
                    XCTAssertLessThanOrEqual(abs(value - reference), 1000 * T.ulpOfOne * max(1, abs(reference)), place)
                }
            case .sums:
                // n additions of terms of about 1 in double, in another order than the formula's: n² · 2⁻⁵³ at worst,
                // then one rounding to T.
                // Nobody reads what a loop writes beyond the last channel.
                for buffer in [first, second] { buffer.elements[channels...].update(repeating: 0) }
                let sums = Array(first.elements) + Array(second.elements)
                found = sums.map { T($0) }
                let n = Double(runs * length)
                for (sum, reference) in zip(sums, expected) {
                    let bound = n * n * 0x1p-53 * 16 + Double(T.ulpOfOne) * abs(sum)
                    XCTAssertLessThanOrEqual(abs(sum - Double(reference)), bound, place)
                }
            }
            let sums = (Array(first.elements) + Array(second.elements)).map(\.bitPattern)
            let own = found.map(\.bits) + sums
            XCTAssertEqual(own, bits ?? own, "other bits than baseline: \(place)")
            bits = own
        }
        for index in out.elements.indices { out.elements[index] = before[index] }
    }

    private func run(_ loop: Loop, _ table: kernel_table, _ stores: Stores) {
        func operand(_ buffer: GuardedBuffer<T>) -> kernel_operand {
            kernel_operand(
                base: UnsafeMutableRawPointer(buffer.elements.baseAddress!), stride: stride, prefetch: 100_000,
                prefetch_last: 50_000)
        }
        func array(_ place: Place) -> UnsafeRawPointer {
            loop.name == "combination"
                ? UnsafeRawPointer(wide[place.rawValue].elements.baseAddress!)
                : UnsafeRawPointer(coefficients[place.rawValue].elements.baseAddress!)
        }
        // A prefetch never faults, so that its address may be anywhere: here it is behind the guard page.
        var tile = kernel_tile(
            element: T.element, layout: layout, runs: runs, segments: segments, pitch: pitch, length: length,
            band: 16,
            x: operand(x), dy: operand(dy), out: operand(out), z: operand(z), dz: kernel_operand(), bits: kernel_bits(),
            weights: operand(weights), epilogue: nil, streams: stores.streams ? 1 : 0,
            aligns: stores.aligns ? 1 : 0, panel: stores.takesPanels && (stride % 16 == 0 || !stores.streams) ? 4 : 0)
        tile.weights.stride = layout == .rows ? 1 : length
        if !loop.weighs { tile.weights = kernel_operand() }
        var channels = kernel_channels(
            pivot: pivot.elements.baseAddress, first: first.elements.baseAddress,
            second: second.elements.baseAddress, mean: array(.mean), scale: array(.scale), shift: array(.shift),
            dy_mean: array(.dyMean), slope: array(.slope), u_scale: array(.uScale), u_shift: array(.uShift),
            gain: array(.gain), invstd: array(.invstd), z_mean: array(.zMean))
        if loop.name.hasPrefix("clipped") {
            channels.gain = UnsafeRawPointer(ones.elements.baseAddress!)
            channels.pivot = UnsafePointer(zeros.elements.baseAddress!)
        }
        withUnsafePointer(to: loop.epilogue) { epilogue in
            tile.epilogue = epilogue
            (table[keyPath: loop.pointer] ?? table[keyPath: loop.other])?(&tile, &channels)
        }
    }
}
