// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// Derivatives along a direction, and gradients of a gradient.
///
/// Both are made of the projection that takes a direction v of x to that of x_hat,
///
///     P(v) = invstd · (v − mean(v) − x_hat · mean(v · x_hat))        P(v) = invstd · v with constants for statistics
///
/// which is its own transpose, so that dx = gamma · P(dy). Its sums are those of a backward call, taken of another tensor;
/// what they are followed by is linear in the tensors, with coefficients per channel.
struct Derivatives {
    let call: Call
    var geometry: Geometry
    var x: Operand
    var gamma: Elements?
    var mean: UnsafePointer<Double>
    var inverseStd: UnsafePointer<Double>
    let frozen: Bool
    let groups: Groups
    /// Values per channel, for means; of none, the sums are 0.
    var count = 1.0

    /// Rows of sums, one for all values that share their statistics. Constants need no sums, but for gradients of parameters,
    /// which may have a row per group.
    var rows: Int { frozen ? groups.count : groups.statisticsRows }
    func row(_ group: Int) -> Int { frozen ? group : groups.statisticsRow(group) }

    /// The samples of a slice, with the rows that they have, of which `counts` are the values.
    func part(_ slice: Slice, _ counts: UnsafePointer<Double>) -> Derivatives {
        var part = self
        part.geometry = geometry.slice(slice)
        part.x = x.slice(slice, geometry.elementSize)
        part.gamma = gamma?.from(groups.parameterRow(slice.group) * geometry.channels)
        part.mean += groups.statisticsRow(slice.group) * geometry.channels
        part.inverseStd += groups.statisticsRow(slice.group) * geometry.channels
        part.count = max(counts[groups.statisticsRow(slice.group)], 1)
        return part
    }

    /// Σv and Σv · (x − mean) per channel, an array after the other.
    struct Sums {
        let values: UnsafeMutablePointer<Double>
        let centred: UnsafeMutablePointer<Double>

        func from(_ offset: Int) -> Sums { Sums(values: values + offset, centred: centred + offset) }
    }

    /// Adds the sums of a tensor to those of its rows; about x, or about another tensor, of which the moments are kept. The
    /// standard deviation only says whether sums about 0 will do: of float32 they do, to twice as many digits as it has.
    @_optimize(size)
    func reduce(
        _ v: Operand, about other: Operand? = nil, into sums: Sums, _ scratch: DerivativeScratch
    ) throws(Failure) {
        var slices = groups.slices(geometry.outer)
        while let slice = slices.next() {
            let part = part(slice, scratch.counts)
            let row = row(slice.group)
            let size = geometry.elementSize
            try part.reduce(
                v.slice(slice, size), other?.slice(slice, size) ?? part.x,
                other == nil ? part.mean : scratch.momentsOfRow(row).means, into: scratch.ofSlice)
            let sums = sums.from(row * geometry.channels)
            for channel in 0..<geometry.channels {
                sums.values[channel] += scratch.ofSlice.values[channel]
                sums.centred[channel] += scratch.ofSlice.centred[channel]
            }
        }
    }

    private func reduce(
        _ v: Operand, _ x: Operand, _ mean: UnsafePointer<Double>, into sums: Sums
    ) throws(Failure) {
        var backward = Backward(geometry: geometry, dy: v, x: x, mean: mean, inverseStd: inverseStd)
        backward.geometry.xStride = x.stride
        backward.geometry.yStride = v.stride
        let sweep = backward.sweep(call, reduces: true, maps: false)
        var finalize = backward.finalize(.reduced(count: count))
        finalize.sumDy = sums.values
        finalize.sumDyCentred = sums.centred
        sweep.pointee.finalize = call.finalize(finalize)
        try sweep.pointee.run(call)
    }

    /// gamma · P(v) + gamma' · x_hat + beta', the primes being the directions of gamma and beta: what y changes by.
    struct Direction {
        var v: Operand
        var sums: Sums
        var gamma: Elements?
        var beta: Elements?

        func part(_ slice: Slice, _ whole: Derivatives) -> Direction {
            let channels = whole.geometry.channels
            let parameters = whole.groups.parameterRow(slice.group) * channels
            return Direction(
                v: v.slice(slice, whole.geometry.elementSize), sums: sums.from(whole.row(slice.group) * channels),
                gamma: gamma?.from(parameters), beta: beta?.from(parameters))
        }
    }

    /// True if it is beta' alone, for which no tensor has to be looked at.
    func isConstant(_ direction: Direction) -> Bool { direction.v.base == nil && direction.gamma == nil }

    /// A sweep that writes it, unless it is constant. A tensor that has no part in it is not looked at: 0 · infinity would
    /// be NaN.
    @_optimize(size)
    func sweep(_ direction: Direction, to out: Operand, _ room: Room) -> UnsafeMutablePointer<Sweep> {
        if direction.v.base == nil {
            return normalization(of: x, to: out, room) { channel in
                ChannelMap(
                    mean: mean[channel], scale: (direction.gamma?[channel] ?? 0) * inverseStd[channel],
                    shift: direction.beta?[channel] ?? 0)
            }
        }
        if frozen && direction.gamma == nil {
            return normalization(of: direction.v, to: out, room) { channel in
                ChannelMap(scale: scale(channel), shift: direction.beta?[channel] ?? -0.0)
            }
        }
        return combination(direction.v, x, to: out, room) { channel in combined(direction, channel) }
    }

    func scale(_ channel: Int) -> Double { (gamma?[channel] ?? 1) * inverseStd[channel] }

    private func combined(_ direction: Direction, _ channel: Int) -> ThreeTensorMap {
        let scale = scale(channel)
        var combined = ThreeTensorMap(scale: scale, mean: mean[channel], inverseStd: inverseStd[channel])
        combined.slope = direction.gamma?[channel] ?? 0
        combined.shift = direction.beta?[channel] ?? 0
        if frozen { return combined }
        combined.dyMean = direction.sums.values[channel] / count
        combined.slope -= scale * (direction.sums.centred[channel] * inverseStd[channel] / count)
        return combined
    }

    /// The maps of a sweep, one for each channel.
    struct Room {
        let maps: UnsafeMutablePointer<ChannelMap>
        let combined: UnsafeMutablePointer<ThreeTensorMap>
    }

    func normalization(
        of tensor: Operand, to out: Operand, _ room: Room, _ map: (Int) -> ChannelMap
    ) -> UnsafeMutablePointer<Sweep> {
        for channel in 0..<geometry.channels { room.maps[channel] = map(channel) }
        let sweep = call.sweep(geometry)
        sweep.pointee.x = tensor
        sweep.pointee.out = out
        sweep.pointee.map = call.kernels.pointee.normalize
        sweep.pointee.finalize = Finalize(room.maps)
        return sweep
    }

    func combination(
        _ v: Operand, _ z: Operand, to out: Operand, _ room: Room, _ combined: (Int) -> ThreeTensorMap
    ) -> UnsafeMutablePointer<Sweep> {
        for channel in 0..<geometry.channels { room.combined[channel] = combined(channel) }
        let sweep = call.sweep(geometry)
        sweep.pointee.x = x
        sweep.pointee.dy = v
        sweep.pointee.z = z
        sweep.pointee.out = out
        sweep.pointee.combines = true
        sweep.pointee.map = call.kernels.pointee.combination
        sweep.pointee.finalize = Finalize(room.combined)
        return sweep
    }

    /// The same value everywhere in a channel.
    func fill(_ out: Operand, with values: Elements?) {
        guard let base = out.base, geometry.count > 0 else { return }
        let elements = Elements(base, geometry.element)
        for outer in 0..<geometry.outer {
            for channel in 0..<geometry.channels {
                let first = outer * out.stride + channel * geometry.inner
                for index in first..<first + geometry.inner { elements[index] = values?[channel] ?? 0 }
            }
        }
    }
}

/// The arrays that a derivative keeps from one sweep to the next: so many pairs of sums, and moments if they are wanted, in
/// rows; the sums of a tensor that is not there are 0.
struct DerivativeScratch {
    let room: Derivatives.Room
    /// Values that share their statistics, by rows of these.
    let counts: UnsafeMutablePointer<Double>
    let ofSlice: Derivatives.Sums
    private let batches: UnsafeMutablePointer<Double>
    private let doubles: UnsafeMutablePointer<Double>
    private let channels: Int
    private let length: Int
    private var next = 0

    init(_ derivatives: Derivatives, sums: Int, hasMoments: Bool = false) throws(Failure) {
        let groups = derivatives.groups
        channels = derivatives.geometry.channels
        length = derivatives.rows * channels
        var layout = ArrayLayout()
        let maps = layout.add(ChannelMap.self, channels)
        let combined = layout.add(ThreeTensorMap.self, channels)
        let counts = layout.add(Double.self, groups.statisticsRows)
        let isSingle = layout.add(Double.self, groups.statisticsRows)
        let ofSlice = layout.add(Double.self, 2 * channels)
        let batches = layout.add(Double.self, hasMoments ? MomentsArray.size(channels) : 0, times: derivatives.rows)
        let doubles = layout.add(Double.self, channels, times: 2 * sums * derivatives.rows)
        let memory = try derivatives.call.thread.pointee.kept.reserve(layout)
        memset(memory, 0, layout.bytes)
        room = Derivatives.Room(maps: maps.in(memory), combined: combined.in(memory))
        self.counts = counts.in(memory)
        self.ofSlice = Derivatives.Sums(values: ofSlice.in(memory), centred: ofSlice.in(memory) + channels)
        self.batches = batches.in(memory)
        self.doubles = doubles.in(memory)
        groups.weigh(derivatives.geometry, totals: self.counts, isSingle: isSingle.in(memory))
    }

    mutating func sums() -> Derivatives.Sums {
        defer { next += 2 * length }
        return Derivatives.Sums(values: doubles + next, centred: doubles + next + length)
    }

    func momentsOfRow(_ row: Int) -> MomentsArray {
        MomentsArray(batches + row * MomentsArray.size(channels), channels)
    }
}
