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
    let geometry: Geometry
    let x: Operand
    let gamma: Elements?
    let mean: UnsafePointer<Double>
    let inverseStd: UnsafePointer<Double>
    let frozen: Bool

    /// Σv and Σv · (x − mean) per channel, an array after the other.
    struct Sums {
        let values: UnsafeMutablePointer<Double>
        let centred: UnsafeMutablePointer<Double>
    }

    /// The mean of a tensor as a sum of two doubles; `scratch` takes what is not wanted.
    func means(
        of v: Operand, _ mean: UnsafeMutablePointer<Double>, _ meanTail: UnsafeMutablePointer<Double>, scratch: Sums
    ) throws(Failure) {
        var part = geometry
        part.xStride = v.stride
        let sweep = call.sweep(part)
        sweep.pointee.x = v
        sweep.pointee.reduction = .moments
        var finalize = ForwardFinalize(
            statistics: .batch(eps: 0, nil), moments: (count: scratch.values, mean: mean, m2: scratch.centred))
        finalize.meanTails = meanTail
        sweep.pointee.finalize = call.finalize(finalize)
        try sweep.pointee.run(call)
    }

    /// Values per channel, for means; of none, the sums are 0.
    var count: Double { Double(max(geometry.count, 1)) }

    func reduce(_ v: Operand, into sums: Sums) throws(Failure) {
        try reduce(v, x, mean, into: sums)
    }

    /// The same about another tensor than x. Its standard deviation only says whether sums about 0 will do: of float32
    /// they do, to twice as many digits as it has.
    func reduce(
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
        let v: Operand
        let sums: Sums
        let gamma: Elements?
        let beta: Elements?
    }

    /// True if it is beta' alone, for which no tensor has to be looked at.
    func isConstant(_ direction: Direction) -> Bool { direction.v.base == nil && direction.gamma == nil }

    /// A sweep that writes it, unless it is constant. A tensor that has no part in it is not looked at: 0 · infinity would
    /// be NaN.
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

/// The arrays that a derivative keeps from one sweep to the next: so many pairs of sums, and so many others.
struct DerivativeScratch {
    let room: Derivatives.Room
    private let doubles: UnsafeMutablePointer<Double>
    private let channels: Int
    private let arrays: Int
    private var next = 0

    init(_ channels: Int, sums: Int, arrays: Int = 0, _ call: Call) throws(Failure) {
        self.channels = channels
        self.arrays = 2 * sums + arrays
        var layout = ArrayLayout()
        let maps = layout.add(ChannelMap.self, channels)
        let combined = layout.add(ThreeTensorMap.self, channels)
        let doubles = layout.add(Double.self, channels, times: self.arrays)
        let memory = try call.thread.pointee.kept.reserve(layout)
        room = Derivatives.Room(maps: maps.in(memory), combined: combined.in(memory))
        self.doubles = doubles.in(memory)
    }

    func clear() { doubles.update(repeating: 0, count: arrays * channels) }

    mutating func sums() -> Derivatives.Sums { Derivatives.Sums(values: array(), centred: array()) }

    mutating func array() -> UnsafeMutablePointer<Double> {
        defer { next += channels }
        return doubles + next
    }
}
