// SPDX-License-Identifier: Apache-2.0

/// The order of a sweep through its tensors: which channels share a cache, which rows lie side by side, what is prefetched. The
/// blocks follow from the shape and from what is dense; the rest is the machine's, and leaves no trace in the bits.
/// Planning.swift makes it.
struct Plan {
    var threads = 1
    var blocks = Blocks(outer: 0, channels: 1, inner: 0, inputs: 1, dense: false)
    /// Channels that are handled together, and those that would still be in cache when they are mapped.
    var groupSize = 1
    var fitting = 0
    /// True if groups may be written by several threads: not if they lie side by side in one page, within which each
    /// processor would prefetch lines that another one writes.
    var isFarApart = true
    /// True if the map goes by rows, with coefficients for every column: planes so short that their ends would count are
    /// taken for rows.
    var mapsRows = false
    /// The columns of the map. Short rows lie side by side, so that they fill vectors, and coefficients are read in order.
    var columns = Columns()
    /// True if all rows of the map are one after the other.
    var isFlat = false
    /// True if the map takes a few vectors of many rows at a time, whose coefficients stay in registers.
    var usesPanels = false
    /// Channels that are mapped together, and the arrays of coefficients that their map has.
    var mapped = 1
    var coefficients = 3
    /// Parts of the outer indices that a map is shared out in; or blocks, if there are as many.
    var parts = 1
    /// True if values that are not all in cache are mapped from the last part to the first (Schedule.swift).
    var turnsBack = false
    private let extent: Extent
    /// Elements from those in hand to the same of the next group; 0 if two groups are more than a cache holds.
    var prefetch = 0
    /// True if a reduction asks early for rows.
    var prefetchesRows = true
    /// True if outputs go past the caches.
    var streams = false
    /// True if what is written is asked for early.
    var prefetchesOutput = false

    init(_ extent: Extent = (0..<0, 0..<0)) { self.extent = extent }

    @inline(never)
    func part(_ index: Int) -> Extent {
        if parts == blocks.count { return blocks[index] }
        let outer = extent.outer.count
        return (outer * index / parts..<outer * (index + 1) / parts, extent.inner)
    }

    /// Elements of a worker's array of coefficients that are repeated for their columns; 0 if none are.
    func repeated(_ channels: Int) -> Int { mapsRows ? columns.count(min(mapped, channels)) : 0 }
}
