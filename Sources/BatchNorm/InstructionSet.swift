// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The instruction sets that the loops are compiled for, oldest first. Each machine has the first few of them.
enum InstructionSet: Int {
    case baseline, avx2, avx512

    var name: StaticString {
        switch self {
        case .baseline: "baseline"
        case .avx2: "avx2"
        case .avx512: "avx512"
        }
    }

    func load(_ table: UnsafeMutablePointer<kernel_table>) {
        switch self {
        case .baseline: kernels_baseline(table)
        #if arch(x86_64)
            case .avx2: kernels_avx2(table)
            case .avx512: kernels_avx512(table)
        #else
            // No other architecture is found to have more than the baseline.
            default: break
        #endif
        }
    }

    private init?(name: UnsafePointer<CChar>) {
        for raw in 0...InstructionSet.avx512.rawValue {
            guard let candidate = InstructionSet(rawValue: raw) else { continue }
            let size = candidate.name.utf8CodeUnitCount
            if strlen(name) == size && memcmp(name, candidate.name.utf8Start, size) == 0 {
                self = candidate
                return
            }
        }
        return nil
    }

    private static var widest: InstructionSet {
        machine_has_avx512() ? .avx512 : machine_has_avx2() ? .avx2 : .baseline
    }

    /// What BATCHNORM_ISA names, or the widest there is.
    static func chosen() throws(Failure) -> InstructionSet {
        guard let name = getenv("BATCHNORM_ISA"), name.pointee != 0 else { return widest }
        guard let isa = InstructionSet(name: name) else {
            throw Failure(
                BN_ERROR_ENVIRONMENT, "BATCHNORM_ISA", .copied(name), expected: "baseline, avx2 or avx512")
        }
        if isa.rawValue > widest.rawValue {
            throw Failure(
                BN_ERROR_ENVIRONMENT, "BATCHNORM_ISA", .copied(name),
                expected: widest == .avx2
                    ? "what this machine has: baseline or avx2" : "what this machine has: baseline")
        }
        return isa
    }
}
