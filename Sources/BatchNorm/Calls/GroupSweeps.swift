// SPDX-License-Identifier: Apache-2.0

extension Call {
    /// A sweep for each slice. All take their memory first: what fails for want of it fails before anything is written. A
    /// sweep that is the only one does so by itself.
    @inline(never)
    func run(_ slices: Slices, _ make: (Slice) -> UnsafeMutablePointer<Sweep>) throws(Failure) {
        var next = slices
        if let only = next.next(), next.next() == nil { return try make(only).pointee.run(self) }
        next = slices
        while let slice = next.next() { try make(slice).pointee.reserve(self) }
        next = slices
        while let slice = next.next() { try make(slice).pointee.run(self) }
    }
}
