// SPDX-License-Identifier: Apache-2.0
import CBatchNorm

/// A few words for each status, as bn_status_string() gives them.
func statusText(_ status: bn_status) -> UnsafePointer<CChar> {
    switch status {
    case BN_OK: characters("success")
    case BN_ERROR_NULL: characters("a needed pointer is NULL")
    case BN_ERROR_SHAPE: characters("invalid shape")
    case BN_ERROR_DTYPE: characters("unknown dtype")
    case BN_ERROR_STRUCT_SIZE: characters("unknown struct size")
    case BN_ERROR_OPTION: characters("value out of range")
    case BN_ERROR_PAIR: characters("one pointer of a pair is missing")
    case BN_ERROR_OVERLAP: characters("output overlaps another argument")
    case BN_ERROR_ALIGNMENT: characters("misaligned pointer")
    case BN_ERROR_SINGLE_VALUE: characters("one value per channel")
    case BN_ERROR_NONFINITE: characters("statistics that are not finite")
    case BN_ERROR_ENVIRONMENT: characters("environment variable cannot be honoured")
    case BN_ERROR_MEMORY: characters("out of memory")
    case BN_ERROR_NESTED: characters("interrupts another call on this thread")
    default: characters("unknown status")
    }
}
