// SPDX-License-Identifier: Apache-2.0
import CKernels

/// What a sweep keeps per channel, in the working memory of the calling thread.
struct ChannelArrays {
    /// The two numbers that each channel is reduced to, and what the first of them rounded away.
    let first: UnsafeMutablePointer<Double>
    let second: UnsafeMutablePointer<Double>
    let rest: UnsafeMutablePointer<Double>
    let coefficients: Coefficients
    /// Which channels have coefficients that their element type cannot express: 1, or 0.
    let extremes: UnsafeMutablePointer<UInt8>
    /// The two numbers of the blocks that are not folded yet, per column, and what their reduction is centred on.
    private let partials: UnsafeMutablePointer<Double>
    private let partialColumns: Int
    /// Bytes of a slot, and of what it has of an activation's argument.
    private let slotBytes: Int
    private let argumentBytes: Int
    /// Weights of each block, and of all before it.
    let weights: UnsafeMutablePointer<(own: Double, before: Double)>
    private let spread: Int
    /// Room for a worker's coefficients per column, and for what a vector writes beyond the last one.
    private let workspace: UnsafeMutableRawPointer
    private let workspaceColumns: Int
    private let coefficientSize: Int
    /// A worker's buffers for channels that are computed in double.
    private let buffers: UnsafeMutableRawPointer

    /// `slots`: blocks that are not folded at once.
    init(
        _ geometry: Geometry, _ plan: Plan, slots: Int, hasArgument: Bool, coefficientSize: Int,
        _ thread: UnsafeMutablePointer<ThreadState>
    ) throws(Failure) {
        let channels = wholeVectors(geometry.channels)
        self.coefficientSize = coefficientSize
        spread = plan.blocks.spread
        partialColumns = wholeVectors(geometry.channels * spread * plan.blocks.abreast)
        let laid = plan.laid(geometry.channels)
        workspaceColumns = laid == 0 ? 0 : wholeVectors(laid) + 2 * geometry.lineElements + 16
        let coefficientBytes = Coefficients.count * channels * coefficientSize
        argumentBytes = hasArgument ? Coefficients.count &* partialColumns &* coefficientSize : 0
        let columnBytes = 3 * 8 + (hasArgument ? Coefficients.count * coefficientSize : 0)
        let slot = partialColumns.multipliedReportingOverflow(by: columnBytes)
        slotBytes = slot.partialValue
        let partialBytes = slots.multipliedReportingOverflow(by: slotBytes)
        let blocks = geometry.weights == nil ? 0 : wholeVectors(2 * plan.blocks.count)
        let others = channels * (3 * 8 + 1) + coefficientBytes + blocks * 8
        let workspaceBytes = plan.threads * Coefficients.count * workspaceColumns * coefficientSize
        let used = partialBytes.partialValue.addingReportingOverflow(others + workspaceBytes)
        let total = used.partialValue.addingReportingOverflow(63 + plan.threads * Widened.bytes)
        let tooMany = slot.overflow || partialBytes.overflow || used.overflow || total.overflow
        let memory = try thread.pointee.working.reserve(tooMany ? Int.max : total.partialValue)
        // What a loop reads beyond the last column changes no result, but may not be a signalling NaN.
        if geometry.channels * spread % 16 != 0 { memset(memory, 0, used.partialValue) }
        first = memory.assumingMemoryBound(to: Double.self)
        second = first + channels
        rest = second + channels
        coefficients = Coefficients(rest + channels, elements: channels, size: coefficientSize)
        partials = UnsafeMutableRawPointer(rest + channels).advanced(by: coefficientBytes + 8 * blocks)
            .assumingMemoryBound(to: Double.self)
        weights = UnsafeMutableRawPointer(partials - blocks).assumingMemoryBound(to: (own: Double, before: Double).self)
        workspace = UnsafeMutableRawPointer(partials) + partialBytes.partialValue
        extremes = (workspace + workspaceBytes).assumingMemoryBound(to: UInt8.self)
        buffers = memory + (used.partialValue + 63) / 64 * 64
    }

    /// A slot's arrays from a channel on.
    func partial(_ slot: Int, _ channel: Int) -> Partial {
        let start = UnsafeMutableRawPointer(partials) + slot * slotBytes
        let base = start.assumingMemoryBound(to: Double.self) + channel * spread
        let argument = Coefficients(
            start + (slotBytes - argumentBytes), elements: partialColumns, size: coefficientSize)
        return Partial(
            centre: base, first: base + partialColumns, second: base + 2 * partialColumns, argument: argument,
            column: channel * spread)
    }

    struct Partial {
        let centre: UnsafeMutablePointer<Double>
        let first: UnsafeMutablePointer<Double>
        let second: UnsafeMutablePointer<Double>
        /// An activation's argument, from a column on.
        let argument: Coefficients
        let column: Int
    }

    /// Where a worker lays coefficients.
    func workspace(_ worker: Int) -> Coefficients {
        Coefficients(
            workspace + worker * Coefficients.count * workspaceColumns * coefficientSize, elements: workspaceColumns,
            size: coefficientSize)
    }

    func buffers(_ worker: Int) -> UnsafeMutablePointer<Double> {
        (buffers + worker * Widened.bytes).assumingMemoryBound(to: Double.self)
    }

    /// The first of some channels that is extreme; the end of them if none is.
    func firstExtreme(_ channels: Range<Int>) -> Int {
        let found = memchr(extremes + channels.lowerBound, 1, channels.count)
        return found.map { UnsafeRawPointer($0) - UnsafeRawPointer(extremes) } ?? channels.upperBound
    }
}

private func wholeVectors(_ elements: Int) -> Int { (elements + 15) & ~15 }
