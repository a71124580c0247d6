// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels
import Synchronization

/// The gradients of a batch in groups: first the sums over dy of every slice, which belong to its group's statistics and to
/// its group's parameters; then dx, slice by slice.
///
/// Where groups share their statistics but not their parameters, dx is that of gamma · dy:
///
///     dx = invstd · (gamma · dy − Σ gamma · dy / M − x_hat · Σ gamma · dy · x_hat / M)
struct GroupedBackward: ~Copyable {
    /// Has it go by address (see Sweep).
    private let byAddress = Atomic<Bool>(false)
    private let backward: Backward
    private let groups: Groups
    private let dgamma: Elements?
    private let dbeta: Elements?
    private let call: Call
    /// A group of one value was normalized with constants.
    private let freezesSingle: Bool
    /// The sums of a slice: Σdy, Σdy · (x − mean) and Σdy · x_hat. Those of statistics, two; and of parameters, two.
    private let ofSlice: UnsafeMutablePointer<Double>
    private let ofStatistics: UnsafeMutablePointer<Double>
    private let ofParameters: UnsafeMutablePointer<Double>
    private let totals: UnsafeMutablePointer<Double>
    private let isSingle: UnsafeMutablePointer<Double>
    private var channels: Int { backward.geometry.channels }

    init(
        _ backward: Backward, _ groups: Groups, _ parameters: (Elements?, Elements?) = (nil, nil),
        freezesSingle: Bool = false, call: Call
    ) throws(Failure) {
        self.backward = backward
        self.groups = groups
        (dgamma, dbeta) = parameters
        self.call = call
        self.freezesSingle = freezesSingle
        let channels = backward.geometry.channels
        var layout = ArrayLayout()
        let ofSlice = layout.add(Double.self, 3 * channels)
        let ofStatistics = layout.add(Double.self, 2 * channels, times: groups.statisticsRows)
        let ofParameters = layout.add(Double.self, 2 * channels, times: groups.parameterRows)
        let totals = layout.add(Double.self, groups.statisticsRows)
        let isSingle = layout.add(Double.self, groups.statisticsRows)
        let memory = try call.thread.pointee.kept.reserve(layout)
        memset(memory, 0, layout.bytes)
        self.ofSlice = ofSlice.in(memory)
        self.ofStatistics = ofStatistics.in(memory)
        self.ofParameters = ofParameters.in(memory)
        self.totals = totals.in(memory)
        self.isSingle = isSingle.in(memory)
        groups.weigh(backward.geometry, totals: self.totals, isSingle: self.isSingle)
    }

    /// Nothing is written before the memory of all maps is there.
    func run(needsSums: Bool) throws(Failure) {
        if needsSums { try reduce() }
        try call.run(groups.slices(backward.geometry.outer)) { map($0) }
        if !needsSums { return }
        for parameter in 0..<channels * groups.parameterRows {
            let sums = sums(parameter / channels, parameter % channels)
            dbeta?[parameter] = sums.dy
            dgamma?[parameter] = sums.dyXHat
        }
    }

    @_optimize(size)
    func reduce() throws(Failure) {
        var slices = groups.slices(backward.geometry.outer)
        while let slice = slices.next() { try reduce(slice) }
    }

    /// The gradients of beta and gamma, of a row of parameters.
    func sums(_ row: Int, _ channel: Int) -> (dy: Double, dyXHat: Double) {
        let first = 2 * row * channels + channel
        return (ofParameters[first], ofParameters[first + channels])
    }

    @inline(never)
    private func reduce(_ slice: Slice) throws(Failure) {
        let part = backward.slice(slice, groups)
        let sweep = part.sweep(call, reduces: true, maps: false)
        var finalize = part.finalize(.reduced(count: part.geometry.values))
        finalize.sumDy = ofSlice
        finalize.sumDyCentred = ofSlice + channels
        finalize.sumDyXHat = ofSlice + 2 * channels
        sweep.pointee.finalize = call.finalize(finalize)
        try sweep.pointee.run(call)
        let row = groups.statisticsRow(slice.group)
        let statistics = ofStatistics + 2 * row * channels
        let parameters = ofParameters + 2 * groups.parameterRow(slice.group) * channels
        for channel in 0..<channels {
            let gain = groups.gains ? part.gamma?[channel] ?? 1 : 1
            statistics[channel] += gain * ofSlice[channel]
            statistics[channels + channel] += gain * ofSlice[channels + channel]
            parameters[channel] += ofSlice[channel]
            parameters[channels + channel] += ofSlice[2 * channels + channel]
        }
    }

    @inline(never)
    @_optimize(size)
    private func map(_ slice: Slice) -> UnsafeMutablePointer<Sweep> {
        var part = backward.slice(slice, groups)
        let row = groups.statisticsRow(slice.group)
        if (freezesSingle && isSingle[row] == 1) || part.savedConstants { part.freeze() }
        let sums = ofStatistics + 2 * row * channels
        let sweep = part.sweep(call, reduces: false, maps: true)
        sweep.pointee.finalize = call.finalize(
            part.finalize(.totals(count: totals[row], dy: sums, dyCentred: sums + channels, gains: groups.gains)))
        return sweep
    }
}
