// SPDX-License-Identifier: Apache-2.0
import CBatchNorm

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
