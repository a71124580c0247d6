// SPDX-License-Identifier: Apache-2.0
import CKernels
import XCTest

@testable import BatchNorm

/// Every loop, at every length up to several vectors, against its formula one element at a time; flush against guard
/// pages on either side, and with the same bits from every instruction set.
final class KernelTests: XCTestCase {
    func testFloatPlanes() { sweepLengths(Float.self, KERNEL_PLANES) }
    func testFloatRows() { sweepLengths(Float.self, KERNEL_ROWS) }
    func testDoublePlanes() { sweepLengths(Double.self, KERNEL_PLANES) }
    func testDoubleRows() { sweepLengths(Double.self, KERNEL_ROWS) }

    private func sweepLengths<T: TestElement>(_: T.Type, _ layout: kernel_layout) {
        for length in 1...70 {
            // More runs than a band of rows has; channels side by side in planes; gaps, and the lack of them.
            for (runs, stretches, gap) in [(1, 1, 0), (3, 7, 5), (17, 1, 0)] {
                for side in [GuardedBuffer<T>.Side.before, .after] {
                    let channels = layout == KERNEL_ROWS ? 1 : stretches
                    let tile = Tile<T>(layout, runs: runs, stretches: channels, length: length, gap: gap, side: side)
                    for loop in Tile<T>.loops {
                        for stores in loop.outputs == .elements ? Stores.allCases : [.ordinary] {
                            tile.check(loop, stores)
                        }
                    }
                }
            }
        }
    }
}

/// How a map writes.
private enum Stores: CaseIterable { case ordinary, aligned, streamed }

/// A tile of random values with what its channels need.
private struct Tile<T: TestElement> {
    typealias Loop = (
        name: String, pointer: (kernel_table) -> kernel_loop, formula: (Tile<T>) -> [T], outputs: Outputs
    )
    enum Outputs { case sums, elements }

    /// Sums about 0 are float32's alone.
    static var loops: [Loop] { common + (T.self == Float.self ? aboutZero : []) }

    private static var aboutZero: [Loop] {
        [
            ("power_sums", { $0.power_sums }, { $0.sums { x, _, _ in (x, x * x) } }, .sums),
            ("product_sums", { $0.product_sums }, { $0.sums { x, dy, _ in (dy, dy * x) } }, .sums),
        ]
    }

    private static var common: [Loop] {
        [
            (
                "deviation_sums", { $0.deviation_sums },
                { $0.sums { x, _, centre in (x - centre, (x - centre) * (x - centre)) } }, .sums
            ),
            (
                "gradient_sums", { $0.gradient_sums }, { $0.sums { x, dy, centre in (dy, dy * (x - centre)) } }, .sums
            ),
            (
                "normalize", { $0.normalize },
                { $0.values { x, _, c in (x - c[0]) * c[1] + c[2] } }, .elements
            ),
            (
                "gradient", { $0.gradient },
                { $0.values { x, dy, c in (((dy - c[3]) - (x - c[0]) * c[4]) + c[2]) * c[1] } }, .elements
            ),
        ]
    }

    let layout: kernel_layout
    let runs: Int
    let stretches: Int
    let length: Int
    let pitch: Int
    let stride: Int
    let seed: UInt64
    let x: GuardedBuffer<T>
    let dy: GuardedBuffer<T>
    let out: GuardedBuffer<T>
    let centre: GuardedBuffer<Double>
    let first: GuardedBuffer<Double>
    let second: GuardedBuffer<Double>
    let coefficients: [GuardedBuffer<T>]

    private var channels: Int { layout == KERNEL_ROWS ? length : stretches }

    init(
        _ layout: kernel_layout, runs: Int, stretches: Int, length: Int, gap: Int, side: GuardedBuffer<T>.Side
    ) {
        self.layout = layout
        self.runs = runs
        self.stretches = stretches
        self.length = length
        pitch = length + gap
        stride = stretches * (length + gap)
        let elements = (runs - 1) * stride + (stretches - 1) * pitch + length
        // The engine's arrays end with a whole vector, and coefficients with another one.
        let channels = layout == KERNEL_ROWS ? (length + 15) & ~15 : stretches
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
        out = values(elements)
        centre = GuardedBuffer(channels, guarded: doubleSide)
        first = GuardedBuffer(channels, guarded: doubleSide)
        second = GuardedBuffer(channels, guarded: doubleSide)
        // A centre is a value of the element type.
        for index in 0..<channels { centre.elements[index] = Double(T(generator.normal())) }
        coefficients = (0..<5).map { _ in values(layout == KERNEL_ROWS ? channels + 16 : channels) }
    }

    private func forEach(_ body: (_ index: Int, _ channel: Int) -> Void) {
        for run in 0..<runs {
            for stretch in 0..<stretches {
                for column in 0..<length {
                    body(run * stride + stretch * pitch + column, layout == KERNEL_ROWS ? column : stretch)
                }
            }
        }
    }

    func sums(_ term: (Double, Double, Double) -> (Double, Double)) -> [T] {
        let channels = first.elements.count
        var sums = [Double](repeating: 0, count: 2 * channels)
        forEach { index, channel in
            let (a, b) = term(Double(x.elements[index]), Double(dy.elements[index]), centre.elements[channel])
            sums[channel] += a
            sums[channels + channel] += b
        }
        return sums.map { T($0) }
    }

    func values(_ formula: (T, T, [T]) -> T) -> [T] {
        var result = Array(out.elements)
        forEach { index, channel in
            result[index] = formula(x.elements[index], dy.elements[index], coefficients.map { $0.elements[channel] })
        }
        return result
    }

    func check(_ loop: Loop, _ stores: Stores) {
        let expected = loop.formula(self)
        let before = Array(out.elements)
        var bits: [UInt64]?
        for (name, table) in instructionSets {
            for index in out.elements.indices { out.elements[index] = before[index] }
            for buffer in [first, second] { buffer.elements.update(repeating: .nan) }
            run(loop.pointer(table), stores)
            let place =
                "\(loop.name) on \(name), \(T.self), \(layout), \(runs) x \(stretches) x \(length), seed \(seed)"
            let found: [T]
            switch loop.outputs {
            case .elements:
                // Each value takes the same correctly rounded operations in the same order: no difference at all, and
                // nothing outside the tile is touched.
                found = Array(out.elements)
                XCTAssertEqual(found.map(\.bits), expected.map(\.bits), place)
            case .sums:
                // n additions of terms of about 1 in double, in another order than the formula's: n² · 2⁻⁵³ at worst,
                // then one rounding to T.
                // What a loop writes beyond the last channel is nothing to anybody.
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

    private func run(_ loop: kernel_loop, _ stores: Stores) {
        func operand(_ buffer: GuardedBuffer<T>) -> kernel_operand {
            kernel_operand(
                base: UnsafeMutableRawPointer(buffer.elements.baseAddress!), stride: stride, ahead: 100_000,
                last: 50_000)
        }
        func array(_ index: Int) -> UnsafeRawPointer { UnsafeRawPointer(coefficients[index].elements.baseAddress!) }
        // What lies ahead is asked for and never read, so that it may be anywhere: here, behind the guard page.
        var tile = kernel_tile(
            element: T.element, layout: layout, runs: runs, stretches: stretches, pitch: pitch, length: length,
            band: 16,
            x: operand(x), dy: operand(dy), out: operand(out), streams: stores == .streamed ? 1 : 0,
            aligns: stores == .aligned ? 1 : 0)
        var channels = kernel_channels(
            centre: centre.elements.baseAddress, first: first.elements.baseAddress,
            second: second.elements.baseAddress, mean: array(0), scale: array(1), shift: array(2), dy_mean: array(3),
            slope: array(4))
        loop(&tile, &channels)
    }
}
