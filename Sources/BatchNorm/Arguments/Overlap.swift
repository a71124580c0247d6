// SPDX-License-Identifier: Apache-2.0

/// Two footprints whose addresses meet: what lies in the gaps of the other shares no byte with it.
extension Footprint {
    private var isDense: Bool { runs == 1 || stride == width }

    /// True if the two have a byte in common. Slices of one parent that lie in each other's gaps do not.
    func overlaps(_ other: Footprint) -> Bool {
        if isDense { return other.meets(base..<end) }
        if other.isDense { return meets(other.base..<other.end) }
        if stride == other.stride {
            // The strides are equal, so that all runs of one lie alike among those of the other: one pair decides.
            let (low, high) = base <= other.base ? (self, other) : (other, self)
            let offset = Int(high.base - low.base) % stride
            return offset < low.width || offset + high.width > stride
        }
        for run in 0..<runs {
            let start = base + UInt(run * stride)
            if other.meets(start..<start + UInt(width)) { return true }
        }
        return false
    }

    /// True if some run has a byte in these addresses.
    private func meets(_ addresses: Range<UInt>) -> Bool {
        let part = addresses.clamped(to: base..<end)
        let offset = (part.lowerBound - base) % UInt(stride)
        return !part.isEmpty && (offset < UInt(width) || offset + UInt(part.count) > UInt(stride))
    }

    /// True if it is the other argument's memory, first to last.
    func coincides(with other: Footprint) -> Bool { base == other.base && stride == other.stride }
}
