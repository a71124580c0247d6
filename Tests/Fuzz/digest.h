/* SPDX-License-Identifier: Apache-2.0
 *
 * A digest of a call's status and outputs. The sign and the payload of a NaN are the processor's, and left out. So is an
 * overlap: it depends on where the blocks lie. */
#ifndef FUZZ_DIGEST_H
#define FUZZ_DIGEST_H

#include "wrongs.h"

static inline uint64_t infinity_of(const block *b) {
    switch (b->dtype) {
    case BN_FLOAT32: return 0x7F800000;
    case BN_FLOAT64: return UINT64_C(0x7FF) << 52;
    case BN_FLOAT16: return 0x7C00;
    case BN_BFLOAT16: return 0x7F80;
    default: return UINT64_MAX; /* no numbers */
    }
}

/* FNV-1a by element, mixed downwards, as a product carries upwards alone. */
static inline uint64_t add_to_digest(uint64_t digest, uint64_t bits) {
    digest = (digest ^ bits) * 1099511628211u;
    return digest ^ digest >> 32;
}

static inline uint64_t digest_of_call(bn_status status) {
    uint64_t digest = add_to_digest(14695981039346656037u, (uint64_t)status);
    if (what_is_wrong.kind == AN_OVERLAP) return 0;
    for (const block *b = blocks; b < blocks + block_count && status == BN_OK; b++) {
        if (*b->holder != b->values) continue; /* left out */
        uint64_t infinity = infinity_of(b), sign = UINT64_C(1) << (8 * b->element - 1);
        size_t of_run = b->width / b->element;
        for (size_t i = 0; b->is_output && i < b->runs * of_run; i++) {
            uint64_t bits = 0; /* little-endian, as all machines are that this runs on */
            memcpy(&bits, b->values + i / of_run * b->stride + i % of_run * b->element, b->element);
            digest = add_to_digest(digest, b->dtype != 0 && (bits & ~sign) > infinity ? infinity + 1 : bits);
        }
    }
    return digest;
}

#endif
