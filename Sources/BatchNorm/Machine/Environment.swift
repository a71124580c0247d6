// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import CKernels

/// The settings that the environment asks for, as far as the machine can honour them.
struct Environment {
    let isa: InstructionSet
    let threads: Int
    let caches = Caches()
    /// Settings that cannot be honoured: every computing call fails with them.
    private(set) var isaFailure: Failure?
    private(set) var threadsFailure: Failure?
    /// True if all of them can be.
    let isSound: Bool

    static let mostThreads = 1024

    init() {
        do throws(Failure) { isa = try InstructionSet.chosen() } catch {
            isa = .baseline
            isaFailure = error
        }
        do throws(Failure) { threads = try Environment.threadCount() } catch {
            threads = 1
            threadsFailure = error
        }
        isSound = isaFailure == nil && threadsFailure == nil
    }

    /// Frees what the failures hold.
    func discard() {
        isaFailure?.found.discard()
        threadsFailure?.found.discard()
    }

    @inline(never)
    func check() throws(Failure) {
        if let isaFailure { throw isaFailure }
        if let threadsFailure { throw threadsFailure }
    }

    /// Our own variable, OpenMP's, or the processors that the process may use.
    private static func threadCount() throws(Failure) -> Int {
        if let text = getenv("BATCHNORM_NUM_THREADS"), text.pointee != 0 {
            if let count = number(text, end: 0), 1...Environment.mostThreads ~= count { return count }
            throw Failure(
                BN_ERROR_ENVIRONMENT, "BATCHNORM_NUM_THREADS", .copied(text),
                expected: "a whole number from 1 to 1024")
        }
        // OpenMP allows a list, one number per nesting level.
        let comma = CChar(UInt8(ascii: ","))
        if let text = getenv("OMP_NUM_THREADS"), let count = number(text, end: 0) ?? number(text, end: comma),
            count >= 1
        {
            return min(count, Environment.mostThreads)
        }
        return min(processors, Environment.mostThreads)
    }

    /// That the process may use now.
    static var processors: Int { max(1, min(Int(machine_affinity()), quota() ?? Int.max)) }

    /// Whole processors that the cgroup's quota pays for, rounded up: "quota period" in version 2, a file each in
    /// version 1.
    private static func quota() -> Int? {
        let newline = CChar(UInt8(ascii: "\n"))
        var quota = read("/sys/fs/cgroup/cpu.max") { text -> (Int, Int)? in
            let space = CChar(UInt8(ascii: " "))
            guard let granted = number(text, end: space), let rest = strchr(text, Int32(space)),
                let period = number(rest + 1, end: newline)
            else { return nil }
            return (granted, period)
        }
        if quota == nil, let granted = read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", { number($0, end: newline) }),
            let period = read("/sys/fs/cgroup/cpu/cpu.cfs_period_us", { number($0, end: newline) })
        {
            quota = (granted, period)
        }
        guard let (granted, period) = quota, granted > 0, period > 0 else { return nil }
        return (granted - 1) / period + 1
    }

    /// A number of up to nine digits that ends with the given character.
    static func number(_ text: UnsafePointer<CChar>, end: CChar) -> Int? {
        var value = 0
        var length = 0
        while case let digit = Int(text[length]) - 48, 0...9 ~= digit, length < 9 {
            value = value * 10 + digit
            length += 1
        }
        return length > 0 && text[length] == end ? value : nil
    }

    /// Gives the start of a file to the body; an empty text, if there is no such file.
    static func read<Result>(_ path: StaticString, _ body: (UnsafePointer<CChar>) -> Result?) -> Result? {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 64) { buffer -> Result? in
            machine_read(characters(path), buffer.baseAddress!, buffer.count)
            return body(buffer.baseAddress!)
        }
    }
}
