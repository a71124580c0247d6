// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The arguments of a call, in the order of the header, inputs first. Each is named once: it is checked, its memory is
/// compared with that of the arguments before it, and it becomes what the engine works with. Nothing is written before
/// all arguments are entered.
struct ArgumentList {
    let call: Call
    /// Tensors have `outer` slices of `slice` elements; arrays have an element for each channel.
    let outer: Int
    let slice: Int
    let channels: Int
    let elementSize: Int
    /// The type of gamma, beta, running statistics and their gradients.
    let parameter: kernel_element
    let parameterSize: Int
    /// Rows of the arrays that may have one for each group.
    var statisticsRows = 1
    var runningRows = 1
    var parameterRows = 1

    /// An output shares no memory with another argument, except that it may be exactly one input: that at a place of the
    /// list.
    enum Access {
        case read
        case written
        case writtenOver(Int)
    }

    /// The place of the last argument.
    var latest: Int { call.thread.pointee.arguments - 1 }
}

/// A tensor: its first element, and the elements from one outer index to the next.
struct Operand {
    var base: UnsafeMutableRawPointer?
    var stride = 0
}

extension ArgumentList {
    /// A tensor that is needed, unless it has no elements, or the call can do without.
    @inline(never)
    func tensor(
        _ name: StaticString, _ base: UnsafeRawPointer?, stride: Int, isNeeded: Bool = true, _ access: Access = .read
    ) throws(Failure) -> Operand {
        if isNeeded && outer * slice != 0 { _ = try need(base, name) }
        try call.enter(
            Footprint(name, base, runs: outer, width: slice * elementSize, stride: stride * elementSize), elementSize,
            access)
        return Operand(base: UnsafeMutableRawPointer(mutating: base), stride: stride)
    }

    /// An array with `count` elements of `size` bytes in each row.
    @inline(never)
    func array(
        _ name: StaticString, _ base: UnsafeRawPointer?, rows: Int = 1, count: Int, size: Int, _ access: Access = .read
    ) throws(Failure) {
        try call.enter(Footprint(name, base, runs: rows, width: count * size, stride: count * size), size, access)
    }

    /// So many rows of doubles that a caller has laid `stride` apart.
    @inline(never)
    func needed(
        rows name: StaticString, _ base: UnsafeMutablePointer<Double>?, _ rows: Int, stride: Int, _ access: Access
    ) throws(Failure) -> Rows {
        try call.enter(
            Footprint(name, base, runs: rows, width: channels * 8, stride: stride * 8), 8, access)
        return Rows(base: rows == 0 ? base : try need(base, name), stride: stride)
    }

    /// Doubles from a row to the next, such that no address overflows.
    func stride(_ given: Int, rows: Int) throws(Failure) -> Int {
        if given != 0 && (given < 0 || given < channels) {
            throw Failure(BN_ERROR_SHAPE, "stride", .size(given, least: channels), expected: "0, or channels or more")
        }
        let stride = given == 0 ? channels : given
        let (doubles, tooMany) = rows.multipliedReportingOverflow(by: stride)
        if tooMany || doubles > Int.max / 8 {
            throw Failure(BN_ERROR_SHAPE, "stride", .size(given), expected: "rows of doubles within PTRDIFF_MAX bytes")
        }
        return stride
    }
}

/// Rows of doubles, one for each part or group: the first one, and the doubles from a row to the next.
struct Rows {
    var base: UnsafeMutablePointer<Double>?
    let stride: Int

    subscript(row: Int, channel: Int) -> Double {
        get { base.unsafelyUnwrapped[row * stride + channel] }
        nonmutating set { base.unsafelyUnwrapped[row * stride + channel] = newValue }
    }
}

/// Arrays with an element of the parameters' type for each channel. One that is not needed may be absent.
extension ArgumentList {
    func parameter(
        _ name: StaticString, _ base: UnsafeRawPointer?, _ access: Access = .read
    ) throws(Failure) -> Elements? {
        try array(name, base, rows: parameterRows, count: channels, size: parameterSize, access)
        return Elements(ifAny: base, parameter)
    }

    /// A parameter of the scale and one of the shift: gamma and beta, their gradients, or their directions.
    @inline(never)
    func parameters(
        _ names: (StaticString, StaticString), _ scale: UnsafeRawPointer?, _ shift: UnsafeRawPointer?,
        _ access: Access = .read
    ) throws(Failure) -> (Elements?, Elements?) {
        try array(names.0, scale, rows: parameterRows, count: channels, size: parameterSize, access)
        try array(names.1, shift, rows: parameterRows, count: channels, size: parameterSize, access)
        return (Elements(ifAny: scale, parameter), Elements(ifAny: shift, parameter))
    }

    /// Running statistics, if both are given.
    @inline(never)
    func running(
        _ mean: UnsafeRawPointer?, _ variance: UnsafeRawPointer?, _ access: Access,
        names: (StaticString, StaticString) = ("running_mean", "running_var")
    ) throws(Failure) -> RunningStatistics? {
        try array(names.0, mean, rows: runningRows, count: channels, size: parameterSize, access)
        try array(names.1, variance, rows: runningRows, count: channels, size: parameterSize, access)
        guard let mean, let variance else { return nil }
        return (Elements(mean, parameter), Elements(variance, parameter))
    }

    @inline(never)
    func needed(
        running name: StaticString, _ base: UnsafeRawPointer?, _ access: Access = .read
    ) throws(Failure) -> Elements {
        let base = try need(base, name)
        try array(name, base, rows: runningRows, count: channels, size: parameterSize, access)
        return Elements(base, parameter)
    }
}

/// Arrays with a double for each channel: means, inverse standard deviations, sums.
extension ArgumentList {
    @inline(never)
    func statistics(
        _ name: StaticString, _ base: UnsafeMutablePointer<Double>?, times: Int = 1, _ access: Access
    ) throws(Failure) -> UnsafeMutablePointer<Double>? {
        try array(name, base, rows: times * statisticsRows, count: channels, size: 8, access)
        return base
    }

    func needed(statistics name: StaticString, _ base: UnsafePointer<Double>?) throws(Failure) -> UnsafePointer<Double>
    {
        try UnsafePointer(needed(statistics: name, UnsafeMutablePointer(mutating: base), .read))
    }

    @inline(never)
    func needed(
        statistics name: StaticString, _ base: UnsafeMutablePointer<Double>?, _ access: Access
    ) throws(Failure) -> UnsafeMutablePointer<Double> {
        try need(statistics(name, base, access), name)
    }
}

/// An array of means and one of variances.
typealias RunningStatistics = (mean: Elements, variance: Elements)

/// A pointer that the call cannot do without.
func need<P>(_ pointer: P?, _ name: StaticString) throws(Failure) -> P {
    guard let pointer else { throw Failure(BN_ERROR_NULL, name, .null, expected: "a pointer") }
    return pointer
}

/// Two pointers that go together.
func needBothOrNeither(_ a: UnsafeRawPointer?, _ b: UnsafeRawPointer?, _ names: (StaticString, StaticString))
    throws(Failure)
{
    if (a == nil) != (b == nil) {
        throw Failure(BN_ERROR_PAIR, a == nil ? names.0 : names.1, .null, expected: "both of a pair, or neither")
    }
}

/// A structure of the size that this version knows.
func checkSize<T>(_ size: Int, _: T.Type, _ name: StaticString, expected: StaticString) throws(Failure) {
    if size == MemoryLayout<T>.size { return }
    throw Failure(BN_ERROR_STRUCT_SIZE, name, .structSize(size, MemoryLayout<T>.size), expected: expected)
}

extension Call {
    /// A structure of the caller's, which no output may be in: the library reads it once, but the caller may again.
    func structure<T>(_ pointer: UnsafePointer<T>, _ name: StaticString) throws(Failure) {
        let size = MemoryLayout<T>.size
        try enter(Footprint(name, pointer, runs: 1, width: size, stride: size), MemoryLayout<T>.alignment, .read)
    }

    /// Enters an argument; its address has to be a multiple of `alignment`, which is a power of two.
    @inline(never)
    fileprivate func enter(
        _ footprint: Footprint, _ alignment: Int, _ access: ArgumentList.Access
    ) throws(Failure) {
        let entered = thread.pointee.argumentMemory.assumingMemoryBound(to: Footprint.self)
        let count = thread.pointee.arguments
        precondition((count + 1) * MemoryLayout<Footprint>.stride <= ThreadState.argumentBytes)
        switch access {
        case .read: break
        case .written: try footprint.checkOverlap(entered, count, twin: nil)
        case .writtenOver(let twin): try footprint.checkOverlap(entered, count, twin: twin)
        }
        try footprint.checkAlignment(alignment)
        (entered + count).initialize(to: footprint)
        thread.pointee.arguments = count + 1
    }
}

/// The memory that an argument stands for: `runs` pieces of `width` bytes, `stride` bytes apart.
///
///     base                                                            end
///     |<-- width -->|            |             |            |             |
///     |#############|            |#############|            |#############|      runs = 3
///     |<-------- stride -------->|
struct Footprint {
    let name: StaticString
    /// Addresses, wrapping, as a pointer may be anything. Without memory, like NULL, it ends at 0, before any other
    /// begins.
    let base: UInt
    let end: UInt
    let runs: Int
    let width: Int
    let stride: Int

    @inline(__always)
    fileprivate init(_ name: StaticString, _ base: UnsafeRawPointer?, runs: Int, width: Int, stride: Int) {
        self.name = name
        self.base = UInt(bitPattern: base)
        self.runs = runs
        self.width = width
        self.stride = stride
        let isEmpty = base == nil || runs == 0 || width == 0
        end = isEmpty ? 0 : self.base &+ UInt((runs - 1) * stride + width)
    }

    fileprivate func checkOverlap(
        _ entered: UnsafePointer<Footprint>, _ count: Int, twin: Int?
    ) throws(Failure) {
        for index in 0..<count where base < entered[index].end && entered[index].base < end {
            if !overlaps(entered[index]) || (index == twin && coincides(with: entered[index])) { continue }
            throw Failure(
                BN_ERROR_OVERLAP, name, .overlap(entered[index].name),
                expected: index == twin ? "memory of its own, or the same pointer and stride" : "memory of its own")
        }
    }

    fileprivate func checkAlignment(_ alignment: Int) throws(Failure) {
        if base & UInt(alignment - 1) == 0 { return }
        throw Failure(
            BN_ERROR_ALIGNMENT, name, .address(base),
            expected: alignment == 8
                ? "an address that is a multiple of 8"
                : alignment == 4 ? "an address that is a multiple of 4" : "an even address")
    }
}
