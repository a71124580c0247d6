// SPDX-License-Identifier: Apache-2.0

extension Call {
    /// A structure of the caller's, which no output may be in: the library reads it once, but the caller may again.
    func structure<T>(_ pointer: UnsafePointer<T>, _ name: StaticString) throws(Failure) {
        let size = MemoryLayout<T>.size
        let footprint = Footprint(
            name, pointer, runs: 1, width: size, stride: size, alignment: MemoryLayout<T>.alignment)
        try footprint.checkAlignment()
        let count = thread.pointee.structures
        (thread.pointee.footprints + count).initialize(to: footprint)
        thread.pointee.structures = count + 1
    }
}
