// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The arguments of a call, in the order of the header, inputs first. Each is named once: it is checked, its memory is
/// compared with that of the arguments before it, and it becomes what the engine works with. Nothing is written before all
/// arguments are entered.
struct ArgumentList {
    /// The extents and types that the arguments are of.
    let geometry: Geometry
    /// In memory of the thread's, as it would take longer to be cleared than to be used.
    private let footprints: UnsafeMutablePointer<Footprint>
    private var count: Int

    /// With the structures that the call has read: a shape, options, and those that they point to.
    init(_ call: Call, _ geometry: Geometry) {
        self.geometry = geometry
        footprints = call.thread.pointee.footprints
        count = call.thread.pointee.structures
    }

    /// The place of the last argument, for an output that may be exactly that one.
    var latest: Int { count - 1 }

    @inline(never)
    private mutating func input(_ footprint: Footprint) throws(Failure) {
        try footprint.checkAlignment()
        (footprints + count).initialize(to: footprint)
        count += 1
    }

    /// An output shares memory with nothing, but for the one input that it may be. One that is absent is not entered.
    @inline(never)
    private mutating func output(_ footprint: Footprint, orExactly twin: Int?) throws(Failure) {
        for index in 0..<count where footprint.overlaps(footprints[index]) {
            if index == twin && footprint.coincides(with: footprints[index]) { continue }
            throw Failure(
                BN_ERROR_OVERLAP, footprint.name, .overlap(footprints[index].name),
                expected: index == twin ? "memory of its own, or the same pointer and stride" : "memory of its own")
        }
        try input(footprint)
    }
}

/// Tensors of the call's extents.
extension ArgumentList {
    /// A tensor that is needed, unless it has no elements, or the call can do without.
    @inline(never)
    mutating func tensor(
        _ name: StaticString, _ base: UnsafeRawPointer?, stride: Int, isNeeded: Bool = true
    ) throws(Failure) -> Operand {
        try checkBase(name, base, isNeeded)
        try input(footprint(name, base, stride))
        return Operand(base: UnsafeMutableRawPointer(mutating: base), stride: stride)
    }

    @inline(never)
    mutating func output(
        tensor name: StaticString, _ base: UnsafeMutableRawPointer?, stride: Int, isNeeded: Bool = false,
        orExactly twin: Int? = nil
    ) throws(Failure) -> Operand {
        try checkBase(name, base, isNeeded)
        if base == nil { return Operand(base: nil, stride: stride) }
        try output(footprint(name, base, stride), orExactly: twin)
        return Operand(base: base, stride: stride)
    }

    private func checkBase(_ name: StaticString, _ base: UnsafeRawPointer?, _ isNeeded: Bool) throws(Failure) {
        if base == nil && isNeeded && geometry.count != 0 {
            throw Failure(BN_ERROR_NULL, name, .null, expected: "a pointer")
        }
    }

    private func footprint(_ name: StaticString, _ base: UnsafeRawPointer?, _ stride: Int) -> Footprint {
        let size = geometry.elementSize
        return Footprint(
            name, base, runs: geometry.outer, width: geometry.channels * geometry.inner * size, stride: stride * size,
            alignment: size)
    }
}

/// Arrays with an element for each channel, or rows of them; each may be absent.
extension ArgumentList {
    /// An array of the parameters' type: gamma, beta, running statistics.
    @inline(never)
    mutating func parameters(
        _ name: StaticString, _ base: UnsafeRawPointer?, rows: Int = 1
    ) throws(Failure) -> Elements? {
        try input(array(name, base, rows, geometry.channels, geometry.parameter.size))
        return base.map { Elements($0, geometry.parameter) }
    }

    @inline(never)
    mutating func output(
        parameters name: StaticString, _ base: UnsafeMutableRawPointer?, rows: Int = 1
    ) throws(Failure) -> Elements? {
        guard let base else { return nil }
        try output(array(name, base, rows, geometry.channels, geometry.parameter.size), orExactly: nil)
        return Elements(base, geometry.parameter)
    }

    /// An array of doubles: means, inverse standard deviations, sums.
    @inline(never)
    mutating func statistics(
        _ name: StaticString, _ base: UnsafePointer<Double>?, rows: Int = 1
    ) throws(Failure) -> UnsafePointer<Double>? {
        try input(array(name, base, rows, geometry.channels, 8))
        return base
    }

    mutating func needed(
        statistics name: StaticString, _ base: UnsafePointer<Double>?, rows: Int = 1
    ) throws(Failure) -> UnsafePointer<Double> {
        try need(statistics(name, base, rows: rows), name)
    }

    @inline(never)
    mutating func output(
        statistics name: StaticString, _ base: UnsafeMutablePointer<Double>?, rows: Int = 1, orExactly twin: Int? = nil
    ) throws(Failure) -> UnsafeMutablePointer<Double>? {
        if base == nil { return nil }
        try output(array(name, base, rows, geometry.channels, 8), orExactly: twin)
        return base
    }

    mutating func needed(
        output name: StaticString, _ base: UnsafeMutablePointer<Double>?, orExactly twin: Int? = nil
    ) throws(Failure) -> UnsafeMutablePointer<Double> {
        try need(output(statistics: name, base, orExactly: twin), name)
    }
}

/// The weights of positions, if there are any.
extension ArgumentList {
    mutating func weights() throws(Failure) {
        guard let weights = geometry.weights else { return }
        if weights.base == nil && geometry.count != 0 {
            throw Failure(BN_ERROR_NULL, "weights->values", .null, expected: "a pointer")
        }
        if geometry.count.multipliedReportingOverflow(by: geometry.number.size).overflow {
            throw Failure(
                BN_ERROR_SHAPE, "shape->outer", .size(geometry.outer),
                expected: "outer * inner weights within PTRDIFF_MAX bytes")
        }
        try array("weights->values", weights.base, count: geometry.count, size: geometry.number.size)
    }
}

/// Arrays of any other length, of elements of so many bytes.
extension ArgumentList {
    @inline(never)
    mutating func array(_ name: StaticString, _ base: UnsafeRawPointer?, count: Int, size: Int) throws(Failure) {
        try input(array(name, base, 1, count, size))
    }

    @inline(never)
    mutating func output(
        array name: StaticString, _ base: UnsafeMutableRawPointer?, count: Int, size: Int, orExactly twin: Int? = nil
    ) throws(Failure) {
        if base != nil { try output(array(name, base, 1, count, size), orExactly: twin) }
    }

    private func array(
        _ name: StaticString, _ base: UnsafeRawPointer?, _ rows: Int, _ count: Int, _ size: Int
    ) -> Footprint {
        Footprint(name, base, runs: rows, width: count * size, stride: count * size, alignment: size)
    }
}
