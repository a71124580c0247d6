// SPDX-License-Identifier: Apache-2.0
import CBatchNorm
import Glibc
import XCTest

@testable import BatchNorm

/// The values that the environment variables may have.
final class EnvironmentTests: XCTestCase {
    private func environment(_ variables: [String: String]) -> Environment {
        for name in ["BATCHNORM_ISA", "BATCHNORM_NUM_THREADS", "OMP_NUM_THREADS"] {
            if let value = variables[name] { setenv(name, value, 1) } else { unsetenv(name) }
        }
        defer { for name in variables.keys { unsetenv(name) } }
        return Environment()
    }

    private func message(_ failure: Failure?) -> String? {
        guard let failure else { return nil }
        defer { failure.found.discard() }
        return withUnsafeTemporaryAllocation(of: CChar.self, capacity: Message.capacity) { buffer in
            var message = Message(buffer.baseAddress!)
            failure.describe(in: "bn", to: &message)
            return String(cString: buffer.baseAddress!)
        }
    }

    func testInstructionSets() {
        for (name, _) in instructionSets {
            let environment = environment(["BATCHNORM_ISA": name])
            XCTAssertEqual(String(describing: environment.isa.name), name)
            XCTAssertNil(environment.isaFailure)
        }
        XCTAssertEqual(String(describing: environment([:]).isa.name), instructionSets.last!.name)
        XCTAssertEqual(String(describing: environment(["BATCHNORM_ISA": ""]).isa.name), instructionSets.last!.name)
        for name in ["sse", "AVX2", "avx", "avx5122", String(repeating: "x", count: 1000)] {
            let failure = message(environment(["BATCHNORM_ISA": name]).isaFailure)
            XCTAssertEqual(failure, "bn: BATCHNORM_ISA is '\(name.prefix(64))'; expected baseline, avx2 or avx512")
        }
    }

    func testThreadCounts() {
        XCTAssertEqual(environment(["BATCHNORM_NUM_THREADS": "7", "OMP_NUM_THREADS": "3"]).threads, 7)
        XCTAssertEqual(environment(["OMP_NUM_THREADS": "3"]).threads, 3)
        XCTAssertEqual(environment(["OMP_NUM_THREADS": "4,2"]).threads, 4)
        XCTAssertEqual(environment(["OMP_NUM_THREADS": "99999"]).threads, 1024)
        let granted = environment([:]).threads
        XCTAssertTrue((1...sysconf(Int32(_SC_NPROCESSORS_ONLN))).contains(granted))
        for nonsense in ["x", "0", "-1", "", "4x"] {
            XCTAssertEqual(environment(["OMP_NUM_THREADS": nonsense]).threads, granted, nonsense)
        }
        for nonsense in ["x", "0", "-1", "1025", "4,2", "12345678901234567890"] {
            XCTAssertEqual(
                message(environment(["BATCHNORM_NUM_THREADS": nonsense]).threadsFailure),
                "bn: BATCHNORM_NUM_THREADS is '\(nonsense)'; expected a whole number from 1 to 1024")
        }
    }
}
