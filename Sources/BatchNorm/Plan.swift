// SPDX-License-Identifier: Apache-2.0
import CKernels

/// How a sweep goes about its tensors: what shares a cache, what lies side by side, what is asked for early. The blocks
/// follow from the shape and from what is dense; the rest is the machine's, and leaves no trace in the bits.
struct Plan {
    private(set) var threads = 1
    private(set) var blocks = Blocks(outer: 0, channels: 1, inner: 0, inputs: 1, dense: false)
    /// Channels that are handled together.
    private(set) var groupSize = 1
    /// Whether the map goes by rows, with coefficients for every column: planes so short that their ends would count are
    /// taken for rows of `spread` columns per channel.
    private(set) var mapsRows = false
    private(set) var spread = 1
    /// Parts of the outer indices, or blocks if there are as many, that a map is shared out in.
    private(set) var parts = 1
    private var outer = 0
    private var inner = 0
    /// Whether groups may be written by several threads: not where they lie side by side in one page, within which
    /// each processor would ask early for lines that another one writes.
    private(set) var isFarApart = true
    /// Arrays of coefficients that a map has.
    private(set) var coefficients = 3
    /// Channels that are mapped together.
    private(set) var mapped = 1
    /// Rows side by side in a run of a map, so that short rows fill vectors, and its coefficients are read in order.
    private(set) var abreast = 1
    /// Whether all rows are one after the other.
    private(set) var isFlat = false
    /// Elements from those in hand to the same of the next group; 0 if two groups are more than a cache holds.
    private(set) var ahead = 0
    /// Whether outputs go past the caches.
    private(set) var streams = false

    init() {}

    init(_ sweep: borrowing Sweep, threads limit: Int, _ caches: Caches) {
        let geometry = sweep.geometry
        let channels = geometry.channels
        let inputs = max(1, (sweep.x.base == nil ? 0 : 1) + (sweep.dy.base == nil ? 0 : 1))
        // Of tensors that fill half of an address space of 32 bits, no product may overflow: hence the quotients below.
        let channelBytes = max(1, min(geometry.count * geometry.elementSize, Int.max / 2) * inputs)
        threads = max(1, min(limit, geometry.bytes / Plan.bytesPerThread))

        // Written values that will have left the caches before anybody reads them need not go through them; unless their
        // lines are there already, in place. A read for ownership per line is saved, a third of the traffic.
        let inPlace = sweep.out.base == sweep.x.base || sweep.out.base == sweep.dy.base
        streams = sweep.out.base != nil && !inPlace && geometry.bytes > caches.last / 2

        let slice = channels * geometry.inner
        func isDense(_ operand: Operand) -> Bool { operand.base == nil || operand.stride == slice }
        let inputsAreDense = isDense(sweep.x) && isDense(sweep.dy) && isDense(sweep.z) && isDense(sweep.dz)
        // By the strides of the call, as x may be left out of it.
        let isDenseCall =
            geometry.xStride == slice && (sweep.dy.base == nil || geometry.yStride == slice)
            && (isDense(sweep.z) || !sweep.reducesPassing)
        // A row has one weight, and a plane a vector of them.
        let isWeighted = geometry.weights != nil
        blocks = Blocks(
            outer: geometry.outer, channels: channels, inner: geometry.inner, inputs: inputs,
            dense: isDenseCall && sweep.reduction != nil && !isWeighted, isWeighted: isWeighted)

        outer = geometry.outer
        inner = geometry.inner
        let evenly = 4 * threads
        parts = blocks.count >= evenly || outer < evenly ? blocks.count : evenly

        mapsRows = geometry.inner == 1 || (Plan.isShort(geometry) && !isWeighted)
        spread = mapsRows ? geometry.inner : 1
        let takesAll = inputs == 2 && (sweep.epilogue != nil || sweep.combines)
        coefficients = takesAll ? Coefficients.count : inputs == 1 ? 3 : 5
        let room = Plan.coefficientBytes / coefficients / sweep.coefficientSize
        isFlat = mapsRows && inputsAreDense && isDense(sweep.out) && !isWeighted
        if isFlat {
            abreast = Blocks.rowsAbreast(slice, toFill: min(Plan.runLength, geometry.outer * slice / 2))
            if abreast > geometry.outer || abreast * slice > room { abreast = 1 }
            isFlat = abreast * slice >= geometry.lineElements
        }
        mapped = mapsRows && abreast == 1 ? max(16, room / spread / 16 * 16) : channels

        // Columns come by the vector, so that no two threads share a cache line; planes by as many as are summed at once.
        let unit = blocks.isRows ? 16 : 4
        let shared = (channels - 1) / (threads * unit) * unit + unit
        let fitting = caches.second * 3 / 8 / channelBytes
        if abreast > 1 || blocks.abreast > 1 {
            groupSize = channels
        } else if !blocks.isRows {
            let isUnitSmall = channelBytes <= caches.second * 7 / 16 / unit
            let some = fitting >= unit ? fitting / unit * unit : isUnitSmall ? unit : fitting
            groupSize = min(channels, max(1, some), shared)
        } else {
            let fits = sweep.reduction != nil && fitting * spread >= Plan.narrowestPanel
            let panel = blocks.isShared(by: threads) ? channels : max(shared, Plan.narrowestPanel / spread / 16 * 16)
            groupSize = min(channels, fits ? max(unit, min(fitting / unit * unit, shared)) : panel)
        }
        isFarApart = !mapsRows || groupSize * geometry.inner * geometry.elementSize >= Plan.pageBytes
        if groupSize < channels && groupSize <= caches.second * 7 / 16 / channelBytes {
            ahead = groupSize * geometry.inner
        }
    }

    func part(_ index: Int) -> Blocks.Extent {
        if parts == blocks.count { return blocks[index] }
        return (outer * index / parts..<outer * (index + 1) / parts, 0..<inner)
    }

    /// Elements of the coefficients of a worker, spread over the columns that they are for; 0 if they need not be.
    func laid(_ channels: Int) -> Int {
        mapsRows ? min(mapped, channels) * spread * abreast : 0
    }

    /// Whether planes are mapped as rows: not those that fill several vectors, nor too few of a channel for its coefficients
    /// to be worth spreading.
    private static func isShort(_ geometry: Geometry) -> Bool {
        let fills = geometry.inner % 16 == 0 && geometry.inner >= 48
        return 1...shortPlane ~= geometry.inner && !fills && geometry.outer >= fewPlanes
    }

    /// A thread is worth waking for so many bytes, about 20 microseconds of work.
    private static let bytesPerThread = 1 << 18
    /// Elements of a run of short rows: enough to make little of its ends.
    private static let runLength = 512
    /// Planes that are mapped as rows; and how many of a channel it takes for that to be worth it.
    private static let shortPlane = 64
    static let fewPlanes = 4
    /// Bytes of coefficients that stay in a first-level cache beside the rows: of three arrays, or five with a gradient.
    private static let coefficientBytes = 24576
    private static let pageBytes = 4096
    /// Elements of a row, below which a panel of columns costs more in scraps than it saves by being in cache.
    private static let narrowestPanel = 128
}
