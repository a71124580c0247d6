// SPDX-License-Identifier: Apache-2.0
import CKernels
import Synchronization

/// A tensor: its first element, and the elements from one outer slice to the next.
struct Operand {
    var base: UnsafeMutableRawPointer?
    var stride = 0
}

/// One pass of the engine over tensors: reduce each channel to two numbers, settle what follows from them, and map
/// every value with the coefficients so found. Each of the three may be absent.
///
/// Channels are handled in groups: planes that are summed at once, or the columns of rows that share a cache. Where there
/// are groups enough for the threads, a group goes through all three steps at once, while its values are still in cache;
/// otherwise the blocks of all groups are shared out, step by step. The bits are the same.
struct Sweep: ~Copyable {
    /// Has the structure go by address: one without an atomic is copied to the stack for each of its methods.
    private let byAddress = Atomic<Bool>(false)
    let geometry: Geometry
    let kernels: UnsafePointer<kernel_table>
    var x = Operand()
    var dy = Operand()
    var out = Operand()
    /// What an epilogue reads and writes besides, and what its loops are told.
    var z = Operand()
    var dz = Operand()
    var bits = kernel_bits()
    var epilogue: UnsafePointer<kernel_epilogue>?
    /// Whether it is a clip that its own loops know all of.
    var isClip = false
    var reduction: Reduction?
    var settlement = Settlement.unknown
    var map: kernel_loop?
    /// Of a combination, which is computed in double.
    var combines = false
    /// Bytes of a coefficient.
    var coefficientSize: Int { combines ? MemoryLayout<Double>.size : geometry.number.size }
    /// Whether what is mapped is dy, and not x.
    var mapsDy = false
    private(set) var plan = Plan()
    private var working: ChannelArrays?
    var arrays: ChannelArrays { working.unsafelyUnwrapped }

    init(_ geometry: Geometry, _ kernels: UnsafePointer<kernel_table>) {
        self.geometry = geometry
        self.kernels = kernels
    }

    @inline(never)
    mutating func run(_ call: Call) throws(Failure) {
        try reserve(call)
        if geometry.weights != nil { weighBlocks() }
        if epilogue != nil { settlement.prepare(self) }
        let pool = call.library.pointee.pool
        withUnsafePointer(to: &self) { sweep in
            if sweep.pointee.isTogether {
                sweep.share(sweep.pointee.groups, pool) { Sweep.at($0).pointee.handle(group: $1, worker: $2) }
            } else {
                sweep.stepwise(pool)
            }
        }
    }

    /// Makes a plan and takes the memory for it; a sweep that has done so once does not fail.
    @inline(never)
    mutating func reserve(_ call: Call) throws(Failure) {
        let library = call.library
        plan = Plan(self, threads: library.pointee.workers, library.pointee.environment.caches)
        working = try ChannelArrays(
            geometry, plan, slots: isTogether || reduction == nil ? 1 : plan.blocks.count,
            hasArgument: reducesPassing && plan.blocks.isLaid, coefficientSize: coefficientSize, call.thread)
    }

    /// Whether a group goes through all steps at once.
    private var isTogether: Bool {
        groups >= plan.threads && (plan.threads == 1 || map == nil || plan.isFarApart)
    }

    /// Whether the reduction is of what passes an activation or a mask.
    var reducesPassing: Bool {
        if epilogue == nil { return false }
        if case .gradientSums = reduction { return true }
        return false
    }

    private func weighBlocks() {
        guard let weights = geometry.weights else { return }
        var before = 0.0
        for block in 0..<plan.blocks.count {
            let own = weights.sum(plan.blocks[block], geometry.number)
            arrays.weights[block] = (own, before)
            before += own
        }
    }

    /// What the values of one channel count for, in a block and in all blocks before it.
    func values(_ block: Int) -> (own: Double, before: Double) {
        if geometry.weights != nil { return arrays.weights[block] }
        let (own, before) = plan.blocks.values(block)
        return (Double(own), Double(before))
    }

    fileprivate var groups: Int { (geometry.channels - 1) / plan.groupSize + 1 }

    @inline(never)
    private func handle(group: Int, worker: Int) {
        let range = members(of: group)
        if let reduction {
            for block in 0..<plan.blocks.count {
                reduce(reduction, block, range, slot: 0, worker: worker)
                fold(reduction, block, range, slot: 0)
            }
        }
        settlement.settle(self, range)
        apply(range, (0..<geometry.outer, 0..<geometry.inner), worker: worker)
    }

    /// Rows are mapped whole.
    fileprivate var mapGroups: Int { plan.mapsRows ? 1 : groups }

    fileprivate static func at(_ context: UnsafeRawPointer) -> UnsafePointer<Sweep> {
        context.assumingMemoryBound(to: Sweep.self)
    }

    @inline(never)
    fileprivate func reduce(item: Int, worker: Int) {
        let block = item % plan.blocks.count
        if let reduction {
            reduce(reduction, block, members(of: item / plan.blocks.count), slot: block, worker: worker)
        }
    }

    @inline(never)
    fileprivate func settle(group: Int) {
        let range = members(of: group)
        if let reduction {
            for block in 0..<plan.blocks.count { fold(reduction, block, range, slot: block) }
        }
        settlement.settle(self, range)
    }

    @inline(never)
    fileprivate func apply(item: Int, worker: Int) {
        let range = mapGroups == 1 ? 0..<geometry.channels : members(of: item / plan.parts)
        apply(range, plan.part(item % plan.parts), worker: worker)
    }

    private func members(of group: Int) -> Range<Int> {
        group * plan.groupSize..<min((group + 1) * plan.groupSize, geometry.channels)
    }

    /// The part of the tensors with these channels and these outer and inner indices; as rows, or as planes; `abreast` of
    /// the rows make a run.
    @inline(never)
    func tile(_ channels: Range<Int>, _ extent: Blocks.Extent, isRows: Bool, abreast: Int) -> kernel_tile {
        let column = channels.lowerBound * geometry.inner + extent.inner.lowerBound
        func part(_ operand: Operand) -> kernel_operand {
            let first = extent.outer.lowerBound * operand.stride + column
            return kernel_operand(
                base: operand.base.map { $0 + first * geometry.elementSize }, stride: operand.stride * abreast,
                ahead: plan.ahead, last: plan.ahead)
        }
        let bits = kernel_bits(
            base: bits.base, first: bits.first + extent.outer.lowerBound * bits.stride + column,
            stride: bits.stride * abreast)
        let weights = geometry.weights?.operand(extent.outer.lowerBound, extent.inner.lowerBound, geometry.number)
        return kernel_tile(
            element: geometry.element, layout: isRows ? KERNEL_ROWS : KERNEL_PLANES, runs: extent.outer.count / abreast,
            stretches: isRows ? 1 : channels.count, pitch: geometry.inner,
            length: isRows ? channels.count * geometry.inner * abreast : extent.inner.count, band: plan.blocks.band,
            x: part(x), dy: part(dy), out: part(out), z: part(z), dz: part(dz), bits: bits,
            weights: weights ?? kernel_operand(), epilogue: epilogue, streams: plan.streams ? 1 : 0, aligns: 0)
    }
}

/// By address: to have one of `self` would be to copy it.
extension UnsafePointer<Sweep> {
    @inline(never)
    fileprivate func stepwise(_ pool: Pool) {
        if pointee.reduction != nil {
            share(pointee.groups * pointee.plan.blocks.count, pool) {
                Sweep.at($0).pointee.reduce(item: $1, worker: $2)
            }
        }
        share(pointee.groups, pool) { context, group, _ in Sweep.at(context).pointee.settle(group: group) }
        if pointee.map != nil {
            share(pointee.mapGroups * pointee.plan.parts, pool) { Sweep.at($0).pointee.apply(item: $1, worker: $2) }
        }
    }

    fileprivate func share(_ count: Int, _ pool: Pool, _ body: Job.Body) {
        pool.run(count, self, threads: pointee.plan.threads, body)
    }
}
