// SPDX-License-Identifier: Apache-2.0
import CBatchNorm

public enum BatchNormError: Error, Hashable, CustomStringConvertible {
    /// An array has another number of elements than the shape says: C would go past its end. -1 is expected of a shape
    /// that no array can have.
    case length(argument: String, actual: Int, expected: Int)
    /// The library's own status, and its sentence.
    case library(status: UInt32, message: String)
    /// The library that was loaded is not one that this package can use.
    case version(Int)

    public var description: String {
        switch self {
        case .length(let argument, _, -1):
            "the shape of \(argument) is negative, or beyond what can be addressed"
        case .length(let argument, let actual, let expected):
            "\(argument) has \(actual) elements, expected \(expected)"
        case .library(_, let message):
            message
        case .version(let version):
            "libbatchnorm 2.0 or a later 2.x is needed, but libbatchnorm.so.2 is "
                + "\(version / 10000).\(version / 100 % 100).\(version % 100)"
        }
    }
}

/// The error's sentence is of this thread, and good until its next failure: it is copied at once.
func call(_ function: () -> bn_status) throws(BatchNormError) {
    let version = version()
    guard version / 10000 == 2, version >= 20000 else { throw .version(version) }
    let status = function()
    guard status == BN_OK else {
        throw .library(status: status.rawValue, message: String(cString: bn_last_error()))
    }
}
