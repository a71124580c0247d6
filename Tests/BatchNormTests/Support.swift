// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels
import Glibc
import XCTest

@testable import BatchNorm

/// SplitMix64: the same numbers in every run and on every machine. A test that fails prints its seed.
struct Generator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// Roughly normal: the sum of four uniform numbers, mean 0 and variance 1.
    mutating func normal() -> Double {
        let sum = (0..<4).reduce(0.0) { sum, _ in sum + Double.random(in: 0..<1, using: &self) }
        return (sum - 2) * 3.0.squareRoot()
    }
}

/// Elements flush against a page that may not be touched, on the side asked for: a loop that reads or writes one
/// element too many ends the test there and then.
final class GuardedBuffer<T> {
    enum Side { case before, after }

    let elements: UnsafeMutableBufferPointer<T>
    private let pages: UnsafeMutableRawPointer
    private let size: Int

    init(_ count: Int, guarded side: Side) {
        let page = Int(sysconf(Int32(_SC_PAGESIZE)))
        let bytes = count * MemoryLayout<T>.stride
        let inside = (bytes + page - 1) / page * page
        size = inside + 2 * page
        pages = mmap(nil, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        mprotect(pages + page, inside, PROT_READ | PROT_WRITE)
        let start = pages + page + (side == .before ? 0 : inside - bytes)
        elements = UnsafeMutableBufferPointer(start: start.bindMemory(to: T.self, capacity: count), count: count)
    }

    deinit { munmap(pages, size) }
}

/// The instruction sets of this machine, each with its loops.
var instructionSets: [(name: String, table: kernel_table)] {
    var sets: [(name: String, table: kernel_table)] = []
    while let isa = InstructionSet.row(sets.count), isa.isThere {
        var table = kernel_table()
        isa.load(&table)
        sets.append((String(describing: isa.name), table))
    }
    return sets
}

/// Outer x channels x inner, for the C ABI.
func shape(_ outer: Int, _ channels: Int, _ inner: Int) -> bn_shape {
    bn_shape(
        struct_size: MemoryLayout<bn_shape>.size, outer: outer, channels: channels, inner: inner, x_stride: 0,
        y_stride: 0,
        dx_stride: 0, weights: nil)
}

func options(eps: Double = 1e-5, momentum: Double = 0.1, biased: Bool = false, frozen: Bool = false) -> bn_options {
    bn_options(
        struct_size: MemoryLayout<bn_options>.size, eps: eps, momentum: momentum, biased_running_var: biased ? 1 : 0,
        frozen: frozen ? 1 : 0, param_dtype: bn_dtype(rawValue: 0), reserved: 0, epilogue: nil, running: nil,
        source: nil, groups: nil)
}

/// A status that is not BN_OK fails the test with the library's own message.
func check(_ status: bn_status, file: StaticString = #filePath, line: UInt = #line) {
    XCTAssertEqual(status, BN_OK, String(cString: bn_last_error()), file: file, line: line)
}

/// The element types, with what the tests need to know of them.
protocol TestElement: BinaryFloatingPoint, BitwiseCopyable {
    static var dtype: bn_dtype { get }
    static var element: kernel_element { get }
    var bits: UInt64 { get }
}

extension Float: TestElement {
    static var dtype: bn_dtype { BN_FLOAT32 }
    static var element: kernel_element { .float32 }
    var bits: UInt64 { UInt64(bitPattern) }
}

extension Double: TestElement {
    static var dtype: bn_dtype { BN_FLOAT64 }
    static var element: kernel_element { .float64 }
    var bits: UInt64 { bitPattern }
}
