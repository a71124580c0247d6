// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// What the environment asks for and the machine can give.
struct Environment {
    let isa: InstructionSet
    let threads: Int
    /// What cannot be honoured: why every computing call must fail.
    private(set) var isaFailure: Failure?
    private(set) var threadsFailure: Failure?

    init() {
        do throws(Failure) { isa = try InstructionSet.chosen() } catch {
            isa = .baseline
            isaFailure = error
        }
        do throws(Failure) { threads = try Environment.threadCount() } catch {
            threads = 1
            threadsFailure = error
        }
    }

    func check() throws(Failure) {
        if let isaFailure { throw isaFailure }
        if let threadsFailure { throw threadsFailure }
    }

    /// Our own variable, OpenMP's, or the processors that the process may use.
    private static func threadCount() throws(Failure) -> Int {
        if let text = getenv("BATCHNORM_NUM_THREADS"), text.pointee != 0 {
            if let count = number(text, end: 0), 1...Pool.maximum ~= count { return count }
            throw Failure(
                BN_ERROR_ENVIRONMENT, "BATCHNORM_NUM_THREADS", .text(text), expected: "a whole number from 1 to 1024")
        }
        // OpenMP allows a list, one number per nesting level.
        let comma = CChar(UInt8(ascii: ","))
        if let text = getenv("OMP_NUM_THREADS"), let count = number(text, end: 0) ?? number(text, end: comma),
            count >= 1
        {
            return min(count, Pool.maximum)
        }
        return max(1, min(Int(machine_affinity()), quota() ?? Int.max, Pool.maximum))
    }

    /// Whole processors that the cgroup's quota pays for, rounded up: "quota period" in version 2, a file each in
    /// version 1.
    private static func quota() -> Int? {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 64) { buffer -> Int? in
            let text = buffer.baseAddress!
            func read(_ path: StaticString) -> UnsafeMutablePointer<CChar> {
                path.utf8Start.withMemoryRebound(to: CChar.self, capacity: path.utf8CodeUnitCount) {
                    machine_read($0, text, buffer.count)
                }
                return text
            }
            let newline = CChar(UInt8(ascii: "\n"))
            let space = CChar(UInt8(ascii: " "))
            var granted = number(read("/sys/fs/cgroup/cpu.max"), end: space)
            var period = strchr(text, Int32(space)).flatMap { number($0 + 1, end: newline) }
            if granted == nil {
                granted = number(read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), end: newline)
                period = number(read("/sys/fs/cgroup/cpu/cpu.cfs_period_us"), end: newline)
            }
            guard let granted, let period, granted > 0, period > 0 else { return nil }
            return (granted - 1) / period + 1
        }
    }

    /// A number of up to nine digits that ends with the given character.
    private static func number(_ text: UnsafePointer<CChar>, end: CChar) -> Int? {
        var value = 0
        var length = 0
        while case let digit = Int(text[length]) - 48, 0...9 ~= digit, length < 9 {
            value = value * 10 + digit
            length += 1
        }
        return length > 0 && text[length] == end ? value : nil
    }
}
