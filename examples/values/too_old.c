/* SPDX-License-Identifier: Apache-2.0
 *
 * A library that is too old for the examples, which they have to ask for its version before anything else. */
int bn_version(void)
{
    return 10000;
}

#define NEVER(name)         \
    void name(void)         \
    {                       \
        __builtin_trap();   \
    }

NEVER(bn_forward_training)
NEVER(bn_forward_inference)
NEVER(bn_backward)
NEVER(bn_moments)
NEVER(bn_shape_from_strides)
NEVER(bn_last_error)
NEVER(bn_status_string)
NEVER(bn_isa_name)
NEVER(bn_set_num_threads)
NEVER(bn_get_num_threads)
