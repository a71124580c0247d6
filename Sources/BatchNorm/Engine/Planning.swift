// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Makes a plan for a sweep, from its shape and from the machine's caches.
extension Plan {
    init(_ sweep: borrowing Sweep, threads limit: Int, areLent: Bool, _ caches: Caches) {
        let geometry = sweep.geometry
        self.init((0..<geometry.outer, 0..<geometry.inner))
        let inputs = max(1, (sweep.x.base == nil ? 0 : 1) + (sweep.dy.base == nil ? 0 : 1))
        threads = Plan.threads(limit, for: geometry.bytes, areLent: areLent)
        // Two tensors in the last cache are read faster without, and so are narrow rows; from memory wide ones would take twice
        // as long. Where the last cache is as slow as memory, rows are asked for unless they are wide (benchmarks/NOTES.md).
        let row = geometry.channels * geometry.elementSize
        let isSlow = caches.isTooLargeToBelieve && row <= Plan.wideRow
        prefetchesRows = inputs == 1 || isSlow || (geometry.bytes > caches.last / 4 && row >= Plan.narrowRow)
        planBlocks(sweep, inputs)
        planMap(sweep, inputs, caches)
        planOutput(sweep, inputs, caches)
        planGroups(sweep, inputs, caches)
    }

    /// So many as a tensor of so many bytes is worth.
    static func threads(_ limit: Int, for bytes: Int, areLent: Bool) -> Int {
        max(1, min(limit, bytes / (areLent ? bytesPerLentThread : bytesPerThread)))
    }

    /// Written values that will have left the caches before anybody reads them need not go through them; unless their lines
    /// are there already, in place. A read for ownership per line is saved, a third of the traffic. If all tensors together are
    /// more than the caches keep, the call gains more than the next reader of its output loses. Where the last cache is as slow
    /// as memory, other lines are asked for early: few stores at a time can wait for theirs.
    @_optimize(size)
    private mutating func planOutput(_ sweep: borrowing Sweep, _ inputs: Int, _ caches: Caches) {
        let geometry = sweep.geometry
        if sweep.out.base == nil || sweep.out.base == sweep.x.base || sweep.out.base == sweep.dy.base { return }
        let tensors = inputs + 1
        // Planes of a channel that are in a cache of the thread's own when they are mapped.
        let areFused = geometry.count <= Plan.fused(caches) / inputs / geometry.elementSize
        let isSlow = sweep.reduction != nil && !blocks.isRows && areFused
        let kept = caches.keeping(oneOf: tensors, threads: threads, slowly: isSlow)
        // Planes that begin within a line are streamed if they are long, or by a loop that writes the end of one and the start
        // of the next at once.
        let plane = geometry.inner * geometry.elementSize
        let areWhole = mapsRows || plane % 64 == 0 || plane >= Plan.brokenPlane || sweep.writesSeams
        streams = geometry.bytes > kept && areWhole
        prefetchesOutput = caches.isTooLargeToBelieve && !streams && geometry.bytes > caches.second * threads / tensors
    }

    private mutating func planBlocks(_ sweep: borrowing Sweep, _ inputs: Int) {
        let geometry = sweep.geometry
        let slice = geometry.channels * geometry.inner
        // By the strides of the call, as x may be left out of it.
        let isDense =
            geometry.xStride == slice && (sweep.dy.base == nil || geometry.yStride == slice)
            && (sweep.z.isDense(slice) || !sweep.reducesActivated)
        // A row has one weight, and a plane a vector of them.
        let isWeighted = geometry.weights != nil
        blocks = Blocks(
            outer: geometry.outer, channels: geometry.channels, inner: geometry.inner, inputs: inputs,
            dense: isDense && sweep.reduction != nil && !isWeighted, isWeighted: isWeighted)
        parts = blocks.count >= evenly || geometry.outer < evenly ? blocks.count : evenly
    }

    /// Four parts for each thread, so that one that is held up leaves the others something to take; and at least eight, so that
    /// the last one is still in cache when the map begins with it.
    private var evenly: Int { max(8, 4 * threads) }

    private mutating func planMap(_ sweep: borrowing Sweep, _ inputs: Int, _ caches: Caches) {
        let geometry = sweep.geometry
        let slice = geometry.channels * geometry.inner
        let isWeighted = geometry.weights != nil
        mapsRows = geometry.inner == 1 || (Plan.isShort(geometry) && !isWeighted)
        columns.perChannel = mapsRows ? geometry.inner : 1
        let takesAll = inputs == 2 && (sweep.epilogue != nil || sweep.combines)
        coefficients = takesAll ? Coefficients.count : inputs == 1 ? 3 : 5
        // Those of short planes are written anew for each group of channels, and read a few times.
        let bytes = geometry.inner == 1 ? caches.first * 5 / 8 : Plan.coefficientBytes
        let room = bytes / coefficients / sweep.coefficientSize
        let areDense =
            sweep.x.isDense(slice) && sweep.dy.isDense(slice) && sweep.z.isDense(slice) && sweep.dz.isDense(slice)
            && sweep.out.isDense(slice)
        isFlat = mapsRows && areDense && !isWeighted
        usesPanels = takesPanels(sweep, inputs, room, caches)
        if isFlat {
            let rows =
                usesPanels
                ? Blocks.rowsPerRun(slice, toFill: 1, inUnitsOf: Plan.panelColumns)
                : Blocks.rowsPerRun(slice, toFill: min(Plan.runLength, geometry.outer * slice / 2))
            columns.rowsPerRun = rows > geometry.outer || rows * slice > room ? 1 : rows
            isFlat = columns.rowsPerRun * slice >= geometry.lineElements
        }
        // In parts that are as even as whole vectors are: a narrow one costs more per column than all the others.
        let most = max(16, room / columns.perChannel / 16 * 16)
        let parts = mapsRows && columns.rowsPerRun == 1 ? (geometry.channels - 1) / most + 1 : 1
        mapped = ((geometry.channels - 1) / parts / 16 + 1) * 16
    }

    /// True for rows so narrow that panels are in the order of memory; or nearly, if all tensors are in a cache. `room`:
    /// columns whose coefficients a first-level cache holds.
    private func takesPanels(_ sweep: borrowing Sweep, _ inputs: Int, _ room: Int, _ caches: Caches) -> Bool {
        let geometry = sweep.geometry
        let slice = geometry.channels * geometry.inner
        let isPlain = sweep.epilogue == nil && !sweep.combines && geometry.element == .float32
        if !isFlat || !isPlain || slice > Plan.panelColumns || sweep.kernels.pointee.has_panels == 0 { return false }
        let isInOrder = Plan.panelColumns % slice == 0
        let isInCache = geometry.bytes <= caches.last / 3 / (inputs + 1)
        let rows = Blocks.rowsPerRun(slice, toFill: 1, inUnitsOf: Plan.panelColumns)
        return 2 * rows <= geometry.outer && rows * slice <= room && (isInOrder || isInCache)
    }

    @_optimize(size)
    private mutating func planGroups(_ sweep: borrowing Sweep, _ inputs: Int, _ caches: Caches) {
        let geometry = sweep.geometry
        let channels = geometry.channels
        // No product may overflow for tensors that fill half of a 32-bit address space: hence the quotients below.
        let channelBytes = max(1, min(geometry.count * geometry.elementSize, Int.max / 2) * inputs)
        // Columns come by the vector, so that no two threads share a cache line; planes by as many as are summed at once.
        let unit = blocks.isRows ? 16 : 4
        let shared = (channels - 1) / (threads * unit) * unit + unit
        fitting = Plan.fused(caches) / channelBytes
        let isMapAlone = sweep.reduction == nil
        let hasManyRows = geometry.outer >= Plan.manyRows * parts
        // Planes gain nothing by it behind a reduction, few or short rows read or repeat their coefficients for each part, and
        // where the last cache is fast there is nothing to gain (benchmarks/NOTES.md).
        let turns = isMapAlone ? !mapsRows || (geometry.inner == 1 && hasManyRows) : geometry.inner == 1
        turnsBack = turns && caches.isTooLargeToBelieve
        if blocks.columns.rowsPerRun > 1 || (columns.rowsPerRun > 1 && threads == 1) {
            groupSize = channels
        } else if !blocks.isRows && isMapAlone {
            // In the order of memory, by all channels of some samples, or by some of all.
            let isCut = turnsBack && channels > fitting
            let some = isCut ? (channels - 1) / (evenly * unit) * unit + unit : shared
            let isBySamples = parts >= evenly && (threads > 1 || geometry.outer >= evenly)
            groupSize = isBySamples ? channels : min(channels, some)
        } else if !blocks.isRows {
            let isUnitSmall = channelBytes <= Plan.prefetched(caches) / unit
            let some = fitting >= unit ? fitting / unit * unit : isUnitSmall ? unit : fitting
            groupSize = min(channels, max(1, some), shared)
        } else {
            groupSize = min(channels, isMapAlone ? shared : columnGroup(sweep, inputs, shared))
        }
        // A map alone takes rows in the order of memory, unless a part has too few of them to repeat coefficients for.
        let isByRows = isMapAlone && parts >= threads && (geometry.inner == 1 || hasManyRows)
        let isPage = groupSize * geometry.inner * geometry.elementSize >= Plan.pageBytes
        isFarApart = !mapsRows || (isPage && !isByRows)
        if !isMapAlone && groupSize < channels && groupSize <= Plan.prefetched(caches) / channelBytes {
            prefetch = groupSize * geometry.inner
        }
    }

    /// Channels whose columns are reduced together: groups as even as whole vectors allow, and as many for each thread. They
    /// are mapped together, too, if they are still in cache then and a strip of them is long. Otherwise one thread takes all
    /// columns. Several share out blocks; or strips, of which each has some, as a processor reads ahead into the next one.
    @_optimize(size)
    private func columnGroup(_ sweep: borrowing Sweep, _ inputs: Int, _ shared: Int) -> Int {
        let channels = sweep.geometry.channels
        let most = max(16, min(fitting, shared) / 16 * 16)
        let groups = ((channels - 1) / (most * threads) + 1) * threads
        let even = ((channels - 1) / (groups * 16) + 1) * 16
        let strip = even * blocks.columns.perChannel * sweep.geometry.elementSize
        let isLong = strip >= (threads == 1 ? Plan.longStrip : Plan.pageBytes)
        if even <= fitting && isLong { return even }
        if threads == 1 || blocks.isShared(by: threads) { return channels }
        let narrowest = Plan.narrowestPanel / blocks.columns.perChannel
        return max(16, max(narrowest, inputs == 1 ? 0 : shared / 2) / 16 * 16)
    }

    /// True if planes are mapped as rows: not those that fill several vectors, nor too few of a channel for its coefficients
    /// to be worth repeating.
    private static func isShort(_ geometry: Geometry) -> Bool {
        let fills = geometry.inner % 16 == 0 && geometry.inner >= 48
        return 1...shortPlane ~= geometry.inner && !fills && geometry.outer >= fewPlanes
    }

    /// Bytes of inputs that a group may have, so that they are still in the second-level cache when they are mapped: beside
    /// them lie as many of the output, and a quarter of the cache is left for coefficients and for lines that meet in a set.
    private static func fused(_ caches: Caches) -> Int { caches.second * 3 / 8 }

    /// The same where the next group is prefetched: two groups, and an eighth of the cache is left.
    private static func prefetched(_ caches: Caches) -> Int { caches.second * 7 / 16 }

    /// A thread is worth waking for so many bytes, about 20 microseconds of work.
    private static let bytesPerThread = 1 << 18
    /// The same of one that is awake, as lent ones are.
    private static let bytesPerLentThread = 3 << 15
    /// Elements of a run of short rows: enough to make little of its ends.
    private static let runLength = 512
    /// Planes that are mapped as rows; and how many of a channel it takes for that to be worth it.
    private static let shortPlane = 64
    static let fewPlanes = 4
    /// Bytes of coefficients that stay in any first-level cache beside the rows: of three arrays, or five with a gradient.
    private static let coefficientBytes = 20480
    /// Rows of a part that make reading or repeating its coefficients little beside them.
    private static let manyRows = 32
    private static let pageBytes = 4096
    /// Cache lines at whose distance an output is asked for, and bytes of a run that is long beside them.
    static let outputLines = 8
    static let longRun = 2048
    /// Bytes of a row, below which the processor foresees the way down its columns.
    private static let narrowRow = 512
    /// Bytes of a row beyond which asking early for two tensors costs more than it saves.
    private static let wideRow = 2048
    /// Columns of a panel, and rows that it takes at a time: so many that loading its coefficients is nothing beside them, and
    /// so few that their lines find room in a first-level cache.
    static let panelColumns = 64
    static let panelRows = 16
    /// Bytes of a plane from which on its broken lines cost less than streaming gains.
    private static let brokenPlane = 2048
    /// Elements of a row, below which a panel of columns costs more in scraps than it saves by being in cache.
    private static let narrowestPanel = 128
    /// Bytes of a strip of columns from which on a processor that reads ahead of it reads little that is not wanted
    /// (benchmarks/NOTES.md).
    private static let longStrip = 1600
}

extension Operand {
    /// True if there is nothing between its outer slices, if it is there.
    fileprivate func isDense(_ slice: Int) -> Bool { base == nil || stride == slice }
}
