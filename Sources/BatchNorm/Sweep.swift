// SPDX-License-Identifier: Apache-2.0
import CKernels

/// One pass of the engine over tensors: reduce each channel to two numbers, settle what follows from them, and map
/// every value with the coefficients so found. Each of the three may be absent.
///
/// Channels are handled in groups that share their memory: a plane's channel by itself, rows' channels as columns side
/// by side. Where there are groups enough for the threads, a group goes through all three steps at once, while its
/// values are still in cache; otherwise the blocks of all groups are shared out, step by step. The bits are the same.
struct Sweep: ~Copyable {
    let geometry: Geometry
    let kernels: kernel_table
    var x = kernel_operand()
    var dy = kernel_operand()
    var out = kernel_operand()
    var reduction: Reduction?
    var settlement: Settlement?
    var map: kernel_loop?
    private(set) var arrays = ChannelArrays()
    /// Columns of rows that are handled together.
    private var columns = 1

    init(_ geometry: Geometry, _ kernels: kernel_table) {
        self.geometry = geometry
        self.kernels = kernels
    }

    @inline(never)
    mutating func run(_ call: Call) throws(Failure) {
        let library = call.library
        let threads = max(1, min(library.pointee.threads, geometry.bytes / Sweep.bytesPerThread))
        columns = geometry.layout == KERNEL_PLANES ? 1 : Sweep.panel(geometry, threads)
        let together = groups >= threads
        arrays = try ChannelArrays(
            geometry, slots: together || reduction == nil ? 1 : geometry.blocks.count, call.thread)
        let pool = library.pointee.pool
        if together {
            share(groups, pool, threads) { Sweep.at($0).pointee.handle(group: $1) }
        } else {
            stepwise(pool, threads)
        }
    }

    private var groups: Int { (geometry.channels - 1) / columns + 1 }

    /// A thread is worth waking for so many bytes, about 20 microseconds of work.
    private static var bytesPerThread: Int { 1 << 18 }

    /// As many cache lines of columns as have all their rows in half of a second-level cache; if that is less than
    /// four, where memory would be read in scraps, all columns.
    private static func panel(_ geometry: Geometry, _ threads: Int) -> Int {
        let line = 64 / geometry.elementSize
        let fitting = (1 << 19) / max(geometry.count * geometry.elementSize, 1) / line * line
        let shared = geometry.channels / threads / line * line
        return fitting < 4 * line ? geometry.channels : min(geometry.channels, fitting, max(shared, 4 * line))
    }

    @inline(never)
    private func handle(group: Int) {
        let range = members(of: group)
        if let reduction {
            for block in 0..<geometry.blocks.count {
                reduce(reduction, block, range, slot: 0)
                fold(reduction, block, range, slot: 0)
            }
        }
        settlement?.settle(self, range)
        apply(range, (0..<geometry.outer, 0..<geometry.inner))
    }

    @inline(never)
    private func stepwise(_ pool: Pool, _ threads: Int) {
        let all = 0..<geometry.channels
        let items = groups * geometry.blocks.count
        if let reduction {
            share(items, pool, threads) { Sweep.at($0).pointee.reduce(item: $1) }
            for block in 0..<geometry.blocks.count { fold(reduction, block, all, slot: block) }
        }
        settlement?.settle(self, all)
        if map != nil { share(items, pool, threads) { Sweep.at($0).pointee.apply(item: $1) } }
    }

    private func share(
        _ count: Int, _ pool: Pool, _ threads: Int, _ body: @convention(c) (UnsafeRawPointer, Int) -> Void
    ) {
        withUnsafePointer(to: self) { pool.run(Job(count: count, context: $0, body: body), threads: threads) }
    }

    private static func at(_ context: UnsafeRawPointer) -> UnsafePointer<Sweep> {
        context.assumingMemoryBound(to: Sweep.self)
    }

    private func reduce(item: Int) {
        let block = item % geometry.blocks.count
        if let reduction { reduce(reduction, block, members(of: item / geometry.blocks.count), slot: block) }
    }

    private func apply(item: Int) {
        apply(members(of: item / geometry.blocks.count), geometry.blocks[item % geometry.blocks.count])
    }

    @inline(never)
    private func apply(_ range: Range<Int>, _ extent: Blocks.Extent) {
        guard let map, !extent.outer.isEmpty, !extent.inner.isEmpty else { return }
        var tile = tile(range, extent)
        var channels = arrays.coefficients.at(range.lowerBound)
        map(&tile, &channels)
    }

    private func members(of group: Int) -> Range<Int> {
        group * columns..<min((group + 1) * columns, geometry.channels)
    }

    /// The part of the tensors with these channels and these outer and inner indices.
    @inline(never)
    func tile(_ range: Range<Int>, _ extent: Blocks.Extent) -> kernel_tile {
        let column = range.lowerBound * geometry.inner + extent.inner.lowerBound
        func part(_ operand: kernel_operand) -> kernel_operand {
            let first = extent.outer.lowerBound * operand.stride + column
            return kernel_operand(base: operand.base.map { $0 + first * geometry.elementSize }, stride: operand.stride)
        }
        return kernel_tile(
            element: geometry.element, layout: geometry.layout, runs: extent.outer.count,
            length: geometry.layout == KERNEL_ROWS ? range.count : extent.inner.count,
            x: part(x), dy: part(dy), out: part(out))
    }
}
