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
