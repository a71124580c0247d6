// SPDX-License-Identifier: Apache-2.0
import CKernels

/// The arrays that a sweep keeps per channel, in the working memory of the calling thread:
///
///     first          | channels |        the two numbers that each channel is reduced to,
///     second         | channels |
///     meanTails      | channels |        and the part of the first that rounding took
///     coefficients   | channels | ...    eight arrays, and room to move them through a page if rows are pages
///     weights        | blocks |
///     extremes       | channels |
///     partials       | pivot | first | second | argument |        a slot: of one block, per column
///                    | pivot | first | second | argument |        of the next block
///     workspaces     | coefficients per column | ...              of each worker, with the same room
///     buffers        | doubles |                                  of each worker
struct ChannelArrays {
    let first: UnsafeMutablePointer<Double>
    let second: UnsafeMutablePointer<Double>
    let meanTails: UnsafeMutablePointer<Double>
    let coefficients: Coefficients
    /// Which channels have coefficients that their element type cannot express: 1, or 0.
    let extremes: UnsafeMutablePointer<UInt8>
    /// Weights of each block, and of all before it.
    let weights: UnsafeMutablePointer<(own: Double, before: Double)>
    private let partials: UnsafeMutablePointer<Double>
    private let partialColumns: Int
    /// Doubles of a slot, and of its three arrays.
    private let slot: Int
    private let perChannel: Int
    /// Room for a worker's coefficients per column, for what a vector writes beyond the last one, and for the way to another
    /// place in a page.
    private let workspaces: UnsafeMutablePointer<UInt8>
    private let workspaceColumns: Int
    private let workspaceBytes: Int
    private let coefficientSize: Int
    private let workerBuffers: UnsafeMutablePointer<Double>

    /// `pagedRows`: the output, if all its rows begin at one offset of a page. `slots`: blocks that are not folded at once.
    init(
        _ geometry: Geometry, _ plan: Plan, pagedRows: UnsafeRawPointer?, slots: Int, hasArgument: Bool,
        coefficientSize: Int,
        _ thread: UnsafeMutablePointer<ThreadState>
    ) throws(Failure) {
        let channels = wholeVectors(geometry.channels)
        self.coefficientSize = coefficientSize
        perChannel = plan.blocks.columns.perChannel
        partialColumns = wholeVectors(plan.blocks.columns.count(geometry.channels))
        let arrays = 3 + (hasArgument ? Coefficients.count * coefficientSize / 8 : 0)
        slot = partialColumns &* arrays
        let repeated = plan.repeated(geometry.channels)
        workspaceColumns = repeated == 0 ? 0 : wholeVectors(repeated) + 2 * geometry.lineElements + 16
        let slack = pagedRows == nil ? 0 : PageOffsets.page
        workspaceBytes = workspaceColumns * coefficientSize * Coefficients.count + slack
        var layout = ArrayLayout()
        let first = layout.add(Double.self, channels)
        let second = layout.add(Double.self, channels)
        let meanTails = layout.add(Double.self, channels)
        let coefficients = layout.add(UInt8.self, channels * coefficientSize * Coefficients.count + slack)
        let weights = layout.add(
            (own: Double, before: Double).self, geometry.weights == nil ? 0 : plan.blocks.count)
        let extremes = layout.add(UInt8.self, channels)
        let partials = layout.add(Double.self, partialColumns, times: arrays * slots)
        let initialized = layout.bytes
        let workspaces = layout.add(UInt8.self, workspaceBytes, times: plan.threads)
        let buffers = layout.add(Double.self, WidenedTile.doubles, times: plan.threads)
        let memory = try thread.pointee.working.reserve(layout)
        // A loop may read beyond the last column. That changes no result, but it may not be a signalling NaN. Workspaces
        // are written as far as they are read.
        if geometry.channels * perChannel % 16 != 0 { memset(memory, 0, initialized) }
        self.first = first.in(memory)
        self.second = second.in(memory)
        self.meanTails = meanTails.in(memory)
        let all = coefficients.in(memory)
        let pitch = channels * coefficientSize
        let moved = pagedRows.map { PageOffsets.distance(of: all, pitch: pitch, count: plan.coefficients, from: $0) }
        self.coefficients = Coefficients(all + (moved ?? 0), elements: channels, size: coefficientSize)
        self.weights = weights.in(memory)
        self.extremes = extremes.in(memory)
        self.partials = partials.in(memory)
        self.workspaces = workspaces.in(memory)
        workerBuffers = buffers.in(memory)
    }

    /// A slot's arrays from a channel on.
    func partial(_ slot: Int, _ channel: Int) -> Partial {
        let start = partials + slot * self.slot
        let base = start + channel * perChannel
        let argument = Coefficients(
            start + 3 * partialColumns, elements: partialColumns, size: coefficientSize)
        return Partial(
            pivot: base, first: base + partialColumns, second: base + 2 * partialColumns, argument: argument,
            column: channel * perChannel)
    }

    struct Partial {
        let pivot: UnsafeMutablePointer<Double>
        let first: UnsafeMutablePointer<Double>
        let second: UnsafeMutablePointer<Double>
        /// An activation's argument, from a column on.
        let argument: Coefficients
        let column: Int
    }

    /// A worker's coefficients per column.
    func workspace(_ worker: Int) -> Coefficients {
        Coefficients(workspaces + worker * workspaceBytes, elements: workspaceColumns, size: coefficientSize)
    }

    /// A worker's buffers for channels that are computed in double.
    func buffers(_ worker: Int) -> UnsafeMutablePointer<Double> { workerBuffers + worker * WidenedTile.doubles }

    /// The first of some channels that is extreme; the end of them if none is.
    func firstExtreme(_ channels: Range<Int>) -> Int {
        let found = memchr(extremes + channels.lowerBound, 1, channels.count)
        return found.map { UnsafeRawPointer($0) - UnsafeRawPointer(extremes) } ?? channels.upperBound
    }
}

private func wholeVectors(_ elements: Int) -> Int { (elements + 15) & ~15 }
