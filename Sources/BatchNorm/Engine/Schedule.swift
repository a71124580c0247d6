// SPDX-License-Identifier: Apache-2.0
import CKernels

/// Runs a sweep.
///
/// Channels are handled in groups: planes that are summed at once, or the columns of rows that share a cache. If there are
/// groups enough for the threads, a group goes through all three steps at once, while its values are still in cache;
/// otherwise the blocks of all groups are shared out, one step after the other. The bits are the same.
///
/// A map that turns back begins with the last values: those that the reduction has read last, or that whoever made x has
/// written last, are still in cache; and those that it writes last are the first that the next reader asks for.
extension Sweep {
    @inline(never)
    mutating func run(_ call: Call) throws(Failure) {
        try reserve(call)
        if geometry.weights != nil { weighBlocks() }
        if epilogue != nil, let finalize { finalize.prepare(channels.unsafelyUnwrapped, geometry.channels) }
        withUnsafePointer(to: &self) { sweep in
            if sweep.pointee.fusesSteps {
                let isAlone = sweep.pointee.reduction == nil
                sweep.share(sweep.pointee.groups, call, descending: isAlone && sweep.pointee.plan.turnsBack) {
                    Sweep.at($0).pointee.handle(group: $1, worker: $2)
                }
            } else {
                sweep.runInPhases(call)
            }
        }
    }

    /// Makes a plan and takes the memory for it; a sweep that has done so once does not fail.
    @inline(never)
    mutating func reserve(_ call: Call) throws(Failure) {
        let library = call.library
        let isLent = call.thread.pointee.lentThreads != nil
        plan = Plan(self, threads: library.pointee.workers, areLent: isLent, library.pointee.environment.caches)
        let arrays = try ChannelArrays(
            geometry, plan, pagedRows: hasPagedRows ? UnsafeRawPointer(out.base) : nil,
            slots: fusesSteps || reduction == nil ? 1 : plan.blocks.count,
            hasArgument: reducesActivated && plan.blocks.columns.areRepeated, coefficientSize: coefficientSize,
            call.thread)
        let step = call.thread.pointee.slot(.channels, ChannelStep.self)
        step.initialize(
            to: ChannelStep(
                arrays: arrays, kernels: kernels, number: geometry.number, parameter: geometry.parameter,
                values: geometry.values,
                isEmpty: geometry.count == 0, isMapped: map != nil, hasEpilogue: epilogue != nil))
        channels = UnsafePointer(step)
    }

    fileprivate var fusesSteps: Bool {
        groups >= plan.threads && (plan.threads == 1 || map == nil || plan.isFarApart)
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

    fileprivate var groups: Int { (geometry.channels - 1) / plan.groupSize + 1 }

    private func members(of group: Int) -> Range<Int> {
        group * plan.groupSize..<min((group + 1) * plan.groupSize, geometry.channels)
    }

    /// All steps of a group.
    @inline(never)
    fileprivate func handle(group: Int, worker: Int) {
        let range = members(of: group)
        if let reduction {
            for block in 0..<plan.blocks.count {
                reduce(reduction, block, range, slot: 0, worker: worker)
                fold(reduction, block, range, slot: 0)
            }
        }
        finalize?.run(channels.unsafelyUnwrapped, range)
        if plan.turnsBack && range.count > plan.fitting {
            applyFromTheEnd(range, worker: worker)
        } else {
            apply(range, (0..<geometry.outer, 0..<geometry.inner), worker: worker)
        }
    }

    /// In a function of its own, whose frame is not on the stack of all others.
    @inline(never)
    private func applyFromTheEnd(_ range: Range<Int>, worker: Int) {
        for part in (0..<plan.parts).reversed() { apply(range, plan.part(part), worker: worker) }
    }

    @inline(never)
    fileprivate func reduce(item: Int, worker: Int) {
        let block = item % plan.blocks.count
        if let reduction {
            reduce(reduction, block, members(of: item / plan.blocks.count), slot: block, worker: worker)
        }
    }

    @inline(never)
    fileprivate func finish(group: Int) {
        let range = members(of: group)
        if let reduction {
            for block in 0..<plan.blocks.count { fold(reduction, block, range, slot: block) }
        }
        finalize?.run(channels.unsafelyUnwrapped, range)
    }

    /// Rows are mapped whole.
    fileprivate var mapGroups: Int { plan.mapsRows ? 1 : groups }

    @inline(never)
    fileprivate func apply(item: Int, worker: Int) {
        let range = mapGroups == 1 ? 0..<geometry.channels : members(of: item / plan.parts)
        apply(range, plan.part(item % plan.parts), worker: worker)
    }

    fileprivate static func at(_ context: UnsafeRawPointer) -> UnsafePointer<Sweep> {
        context.assumingMemoryBound(to: Sweep.self)
    }
}

/// By address: to have one of `self` would be to copy it.
extension UnsafePointer<Sweep> {
    @inline(never)
    fileprivate func runInPhases(_ call: Call) {
        if pointee.reduction != nil {
            share(pointee.groups * pointee.plan.blocks.count, call) {
                Sweep.at($0).pointee.reduce(item: $1, worker: $2)
            }
        }
        share(pointee.groups, call) { context, group, _ in Sweep.at(context).pointee.finish(group: group) }
        if pointee.map != nil {
            share(pointee.mapGroups * pointee.plan.parts, call, descending: pointee.plan.turnsBack) {
                Sweep.at($0).pointee.apply(item: $1, worker: $2)
            }
        }
    }

    fileprivate func share(_ count: Int, _ call: Call, descending: Bool = false, _ body: Job.Body) {
        call.run(count, self, threads: pointee.plan.threads, descending: descending, body)
    }
}
