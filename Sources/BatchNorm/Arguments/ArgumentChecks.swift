// SPDX-License-Identifier: Apache-2.0
import CBatchNorm

/// A member of an enumeration whose values go from 0 to the last one's.
func checkMember(_ value: UInt32, last: UInt32, _ name: StaticString, expected: StaticString) throws(Failure) {
    if value > last { throw Failure(BN_ERROR_OPTION, name, .integer(Int(value)), expected: expected) }
}

/// A member that fills what would be padding.
func checkReserved(_ value: Int32, _ name: StaticString) throws(Failure) {
    if value != 0 { throw Failure(BN_ERROR_OPTION, name, .integer(Int(value)), expected: "0") }
}

func flag(_ value: Int32, _ name: StaticString) throws(Failure) -> Bool {
    if value != 0 && value != 1 { throw Failure(BN_ERROR_OPTION, name, .integer(Int(value)), expected: "0 or 1") }
    return value == 1
}
