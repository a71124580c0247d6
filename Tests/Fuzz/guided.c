/* SPDX-License-Identifier: Apache-2.0
 *
 * One call for each input of libFuzzer, which looks for inputs that reach more of the engine. The
 * call is the one that fuzz makes of a FILE. */
#include "perform.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count) {
    if (slots == NULL) make_room();
    draw_from_bytes(bytes, count);
    draw_call();
    perform();
    return 0;
}
