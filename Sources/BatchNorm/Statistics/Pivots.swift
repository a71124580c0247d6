// SPDX-License-Identifier: Apache-2.0
import CKernels

/// The pivots that the deviations of a block are taken from, channel by channel: one of its values; or 0, which costs two
/// operations per value less.
///
/// About 0 the sums lose log₂ (Σx² / m2) bits where m2 = Σx² − (Σx)² / n cancels. The squares of float32 values are exact in
/// double, and a lane adds up to 1,024 of them, so that rounding is below 3 · 2⁻⁴³ of Σx²: where Σx² is no more than 2¹² of
/// m2, that is up to |mean| / std of 64, invstd is within 2⁻³¹ of itself on any data. Three values that lie close together
/// tell beforehand of channels that lose more.
///
/// The squares of float64 values are not exact, and always taken of deviations from a pivot. Those of 16-bit values have 22
/// bits at most: as many as cancel where values are alike are alike in exponent, and their sums exact. They need no pivot.
///
/// The median of three can still be an outlier, if two of the three samples are, and then log₂ n bits are lost; or three
/// values lie apart that say nothing of the others. Channels that lost too much are summed once more, about the mean
/// that the first sums gave. They are few: float64 may lose four bits, and the median of three values of a normal
/// distribution is so far from its mean once in fifty million channels.
struct Pivots {
    private let tile: kernel_tile
    private let count: Int
    private let pivots: UnsafeMutablePointer<Double>
    /// Where three of a channel's values are, from its first one on.
    private let places: (Int, Int, Int)
    private let kernels: UnsafePointer<kernel_table>

    /// For the channels of a tile whose rows are in single file. Positions without weight do not count.
    init(
        _ tile: kernel_tile, _ pivots: UnsafeMutablePointer<Double>, _ number: kernel_element,
        _ kernels: UnsafePointer<kernel_table>
    ) {
        self.tile = tile
        self.pivots = pivots
        self.kernels = kernels
        let isRows = tile.layout == .rows
        count = isRows ? tile.length : tile.segments
        let length = isRows ? 1 : tile.length
        places =
            tile.weights.base == nil
            ? (0, tile.runs / 2 * tile.x.stride + length / 2, (tile.runs - 1) * tile.x.stride + length - 1)
            : Pivots.weighed(tile, number, length)
    }

    /// The first, the middle and the last that have a weight.
    private static func weighed(_ tile: kernel_tile, _ number: kernel_element, _ length: Int) -> (Int, Int, Int) {
        func place(from start: Int, backwards: Bool) -> Int? {
            let found = Weights.positive(
                tile.weights, number, rows: tile.runs, length, from: start, backwards: backwards)
            return found.map { $0.row * tile.x.stride + $0.column }
        }
        let all = tile.runs * length
        let first = place(from: 0, backwards: false) ?? 0
        return (
            first, place(from: all / 2, backwards: false) ?? first, place(from: all - 1, backwards: true) ?? first
        )
    }

    /// True if the loops for sums about 0 will do: all are 0, and not of float64.
    @inline(never)
    func choose() -> Bool {
        switch tile.element {
        case .float32: return choose(Float.self, ratio: 64)
        case .float64:
            _ = choose(Double.self, ratio: 0)
            return false
        case .float16, .bfloat16:
            pivots.update(repeating: 0, count: count)
            return true
        }
    }

    /// Channels whose sums lost too much get their mean for a pivot; true if there are any.
    @inline(never)
    func recentre(sums: UnsafePointer<Double>, squares: UnsafePointer<Double>, values: Double) -> Bool {
        switch tile.element {
        case .float32: recentre(Float.self, sums, squares, values, most: 4096)
        case .float64: recentre(Double.self, sums, squares, values, most: 16)
        case .float16, .bfloat16: false
        }
    }

    /// The mean is rounded to an element, which costs nothing: it is as near to the mean as the values are to each other.
    private func recentre<T: Real>(
        _: T.Type, _ sums: UnsafePointer<Double>, _ squares: UnsafePointer<Double>, _ values: Double, most: Double
    ) -> Bool {
        var changed = false
        var plain = kernel_fold()
        plain.own = values
        plain.sum = sums
        plain.squares = squares
        let vectors = kernels.pointee.vectors(count)
        let areAllWell = vectors > 0 && kernels.pointee.lose_digits(&plain, most, vectors) == 0
        for channel in (areAllWell ? vectors : 0)..<count {
            let shift = sums[channel] / values
            let squares = squares[channel]
            if squares <= most * (squares - sums[channel] * shift) { continue }
            let mean = Double(T(pivots[channel] + shift))
            if !mean.isFiniteByDifference || mean == pivots[channel] { continue }
            pivots[channel] = mean
            changed = true
        }
        return changed
    }

    /// Chooses pivots for Σdy · (x − mean), which is Σdy · x − mean · Σdy where |mean| / std is small; true if the
    /// loops for sums about 0 will do. An eps far above the variance hides from invstd how small the deviations are.
    /// Three values show it, so that a constant channel has a gradient of 0 and not what roundings leave.
    @inline(never)
    func choose(_ mean: UnsafePointer<Double>, _ inverseStd: UnsafePointer<Double>) -> Bool {
        if tile.element.size == 2 { return choose() }
        let isFloat32 = tile.element == .float32
        var areZero = isFloat32
        let vectors = sampled
        if vectors > 0 {
            var plain = samples(ratio: 64)
            plain.mean = mean
            plain.invstd = inverseStd
            areZero = kernels.pointee.gradient_pivots(&plain, vectors) != 0
        }
        for channel in vectors..<count {
            var isAbout0 = isFloat32 && (mean[channel] * inverseStd[channel]).magnitude <= 64
            if isAbout0 {
                let (median, spread) = median(Float.self, channel)
                isAbout0 = spread * 64 > median.magnitude || median == 0
            }
            pivots[channel] = isAbout0 ? 0 : mean[channel]
            areZero = areZero && pivots[channel] == 0
        }
        return areZero
    }

    private func choose<T: Real>(_: T.Type, ratio: Double) -> Bool {
        var areZero = true
        let vectors = sampled
        if vectors > 0 {
            var plain = samples(ratio: ratio)
            areZero = kernels.pointee.choose_pivots(&plain, vectors) != 0
        }
        for channel in vectors..<count {
            let (median, spread) = median(T.self, channel)
            pivots[channel] = spread * ratio <= median.magnitude ? median : 0
            areZero = areZero && pivots[channel] == 0
        }
        return areZero
    }

    /// Channels whose samples are of float32 and lie side by side, as far as they fill vectors.
    private var sampled: Int { tile.layout == .rows && tile.element == .float32 ? kernels.pointee.vectors(count) : 0 }

    private func samples(ratio: Double) -> kernel_pivots {
        let x = UnsafePointer(tile.x.base.assumingMemoryBound(to: Float.self))
        var plain = kernel_pivots()
        plain.samples = (
            UnsafeRawPointer(x + places.0), UnsafeRawPointer(x + places.1), UnsafeRawPointer(x + places.2)
        )
        plain.ratio = ratio
        plain.pivots = pivots
        return plain
    }

    /// The median of a channel's first, middle and last value, which an outlier is not; and how far the three lie apart.
    /// 0 if it is not finite, as an infinite pivot would make an infinite mean NaN.
    @inline(__always)
    private func median<T: Real>(_: T.Type, _ channel: Int) -> (value: Double, spread: Double) {
        let rows = tile.layout == .rows
        let x = UnsafePointer(tile.x.base.assumingMemoryBound(to: T.self)) + (rows ? channel : channel * tile.pitch)
        let (a, b, c) = (x[places.0], x[places.1], x[places.2])
        let (low, high) = a < b ? (a, b) : (b, a)
        let (least, most) = c < high ? (c, high) : (high, c)
        let median = Double(low < least ? least : low)
        return (median.isFiniteByDifference ? median : 0, Double(most) - Double(low < least ? low : least))
    }
}
