// SPDX-License-Identifier: Apache-2.0
import CKernels

/// How a sweep goes about its tensors: what shares a cache, what lies side by side, what is asked for early. The blocks
/// follow from the shape and from what is dense; the rest is the machine's, and leaves no trace in the bits.
struct Plan {
    private(set) var threads = 1
    private(set) var blocks = Blocks(outer: 0, channels: 1, inner: 0, abreast: 1, inputs: 1)
    /// Channels that are handled together.
    private(set) var columns = 1
    /// Channels of rows that are mapped together.
    private(set) var mapped = 1
    /// Rows side by side in a run of a map, so that short rows fill vectors, and its coefficients are read in order.
    private(set) var abreast = 1
    /// Elements from those in hand to the same of the next group; 0 if two groups are more than a cache holds.
    private(set) var ahead = 0
    /// Whether outputs go past the caches.
    private(set) var streams = false

    init() {}

    init(_ sweep: borrowing Sweep, threads limit: Int, _ caches: Caches) {
        let geometry = sweep.geometry
        let channels = geometry.channels
        let inputs = max(1, (sweep.x.base == nil ? 0 : 1) + (sweep.dy.base == nil ? 0 : 1))
        let channelBytes = max(1, geometry.count * geometry.elementSize * inputs)
        threads = max(1, min(limit, geometry.bytes / Plan.bytesPerThread))

        // Written values that will have left the caches before anybody reads them need not go through them; unless their
        // lines are there already, in place. A read for ownership per line is saved, a third of the traffic.
        let inPlace = sweep.out.base == sweep.x.base || sweep.out.base == sweep.dy.base
        streams = sweep.out.base != nil && !inPlace && geometry.bytes > caches.last / 2

        let isRows = geometry.layout == KERNEL_ROWS
        func isDense(_ operand: kernel_operand) -> Bool { operand.base == nil || operand.stride == channels }
        let inputsAreDense = isRows && isDense(sweep.x) && isDense(sweep.dy)
        let fillsLanes = inputsAreDense && sweep.reduction != nil && channels % 16 != 0 && channels < 256
        blocks = Blocks(
            outer: geometry.outer, channels: channels, inner: geometry.inner,
            abreast: fillsLanes ? Blocks.abreast(channels, toFill: 1) : 1, inputs: inputs)
        if inputsAreDense && isDense(sweep.out) {
            abreast = Blocks.abreast(channels, toFill: Plan.runLength)
            if 2 * abreast > geometry.outer { abreast = 1 }
        }

        // Columns come by the vector, so that no two threads share a cache line.
        let unit = isRows ? 16 : 1
        let shared = max(unit, (channels + threads - 1) / threads / unit * unit)
        let fitting = caches.second * 3 / 8 / channelBytes / unit * unit
        if abreast > 1 || fillsLanes {
            columns = channels
        } else if !isRows {
            columns = min(channels, max(1, fitting), shared)
        } else if sweep.reduction == nil {
            columns = min(channels, shared)
        } else {
            columns = fitting < Plan.narrowestPanel * unit ? channels : min(channels, fitting, shared)
        }
        let coefficients = Plan.coefficientBytes / (2 + 2 * inputs) / geometry.elementSize / unit * unit
        mapped = isRows && abreast == 1 ? max(unit, coefficients) : channels
        if columns < channels && 2 * columns * channelBytes <= caches.second * 7 / 8 {
            ahead = columns * geometry.inner
        }
    }

    /// A thread is worth waking for so many bytes, about 20 microseconds of work.
    private static let bytesPerThread = 1 << 18
    /// Elements of a run of short rows: enough to make little of its ends.
    private static let runLength = 512
    /// Bytes of coefficients that stay in a first-level cache beside the rows: of four arrays, or six with a gradient.
    private static let coefficientBytes = 12288
    /// Cache lines of a row, below which a panel of columns costs more in scraps than it saves by being in cache.
    private static let narrowestPanel = 8
}
