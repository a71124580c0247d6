// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// An instruction set that the loops are compiled for.
struct InstructionSet {
    let name: StaticString
    let load: @convention(c) (UnsafeMutablePointer<kernel_table>?) -> Void
    /// True if this machine has it.
    let isThere: Bool
    /// The rows up to this one, as a message has them: where it is the last that there is, and the last that the machine has.
    private let all: StaticString
    private let available: StaticString

    /// The rows of the table, the narrowest first: a machine that has one has all before it. Nil behind the last.
    static func row(_ index: Int) -> InstructionSet? {
        switch index {
        case 0:
            InstructionSet(
                name: "baseline", load: kernels_baseline, isThere: true, all: "baseline",
                available: "what this machine has: baseline")
        #if arch(x86_64)
            case 1:
                InstructionSet(
                    name: "avx2", load: kernels_avx2, isThere: machine_has_avx2(), all: "baseline or avx2",
                    available: "what this machine has: baseline or avx2")
            case 2:
                InstructionSet(
                    name: "avx512", load: kernels_avx512, isThere: machine_has_avx512(),
                    all: "baseline, avx2 or avx512",
                    available: "what this machine has: baseline, avx2 or avx512")
        #endif
        default: nil
        }
    }

    static var baseline: InstructionSet { row(0).unsafelyUnwrapped }

    /// The last row that `matches`.
    private static func last(where matches: (InstructionSet) -> Bool) -> InstructionSet? {
        var (index, found) = (0, InstructionSet?.none)
        while let candidate = row(index) {
            if matches(candidate) { found = candidate }
            index += 1
        }
        return found
    }

    private func isCalled(_ text: UnsafePointer<CChar>) -> Bool {
        let size = name.utf8CodeUnitCount
        return strlen(text) == size && memcmp(text, name.utf8Start, size) == 0
    }

    /// The one that BATCHNORM_ISA names, or the widest that this machine has.
    @_optimize(size)
    static func chosen() throws(Failure) -> InstructionSet {
        let widest = last { $0.isThere } ?? baseline
        guard let name = getenv("BATCHNORM_ISA"), name.pointee != 0 else { return widest }
        guard let named = last(where: { $0.isCalled(name) }) else {
            let every = last { _ in true } ?? baseline
            throw Failure(BN_ERROR_ENVIRONMENT, "BATCHNORM_ISA", .copied(name), expected: every.all)
        }
        if named.isThere { return named }
        throw Failure(BN_ERROR_ENVIRONMENT, "BATCHNORM_ISA", .copied(name), expected: widest.available)
    }
}

extension kernel_table {
    /// Channels that fill vectors, if the steps have loops over them: with SSE2 they would be 45 KB, and twice as fast at most.
    func vectors(_ channels: Int) -> Int { forward_step == nil ? 0 : channels & ~15 }
}
