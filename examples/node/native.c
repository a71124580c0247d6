/* SPDX-License-Identifier: Apache-2.0
 *
 * The calls of libbatchnorm for batchnorm.js, which makes the one object that each of them takes: numbers, flags and
 * typed arrays by the names of the table below. Arrays are read and written where they are, without a copy. Each is of
 * the type and the length that the call needs, or it throws: C would go past its end. A refusal of the library is an
 * Error with the library's sentence, whose code is the status.
 */
#define NAPI_VERSION 8

#include <batchnorm.h>
#include <node_api.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>

/* What a property is; of arrays, also how long it is. */
enum kind { SIZE, NUMBER, FLAG, AXES, TENSOR, PARAMETER, RUNNING, WEIGHT, STATISTIC, ROW, BITS, INDICES };

#define EACH_PROPERTY(_) \
    _(outer, SIZE) _(channels, SIZE) _(inner, SIZE) _(axis, SIZE) _(dtype, SIZE) _(activation, SIZE) _(masked, SIZE) \
    _(groups, SIZE) _(samples, SIZE) _(perGroup, SIZE) _(eps, NUMBER) _(momentum, NUMBER) _(slope, NUMBER) \
    _(low, NUMBER) _(high, NUMBER) _(biasedRunningVar, FLAG) _(frozen, FLAG) _(interleaved, FLAG) _(averaged, FLAG) \
    _(sizes, AXES) _(strides, AXES) _(x, TENSOR) _(y, TENSOR) _(dy, TENSOR) _(dx, TENSOR) _(residual, TENSOR) \
    _(dz, TENSOR) _(gamma, PARAMETER) _(beta, PARAMETER) _(dgamma, PARAMETER) _(dbeta, PARAMETER) \
    _(runningMean, RUNNING) _(runningVar, RUNNING) _(weights, WEIGHT) _(mean, STATISTIC) _(invstd, STATISTIC) \
    _(count, ROW) _(m2, ROW) _(mask, BITS) _(index, INDICES)
#define NAME(name, kind) P_##name,
enum { EACH_PROPERTY(NAME) PROPERTIES };
#define ENTRY(name, kind) {#name, kind},
static const struct {
    const char *name;
    enum kind kind;
} table[] = {EACH_PROPERTY(ENTRY)};
enum { TENSORS = P_dz - P_x + 1 };

typedef struct arguments {
    size_t size[P_eps];
    double number[P_biasedRunningVar];
    bool flag[P_sizes];
    size_t outer_strides[TENSORS]; /* 0 is dense */
    bool is_strided;
    void *data[PROPERTIES];
    bn_dtype dtype;
    bn_shape shape;
    bn_weights weights;
    bn_epilogue epilogue;
    bn_groups groups;
    bn_options options;
} arguments;

static bool fail(napi_env env, const char *name, const char *expected)
{
    char text[128];
    snprintf(text, sizeof text, "%s: expected %s", name, expected);
    napi_throw_type_error(env, NULL, text);
    return false;
}

static bool fail_length(napi_env env, const char *name, size_t length, size_t expected)
{
    char text[128];
    snprintf(text, sizeof text, "%s has %zu elements, expected %zu", name, length, expected);
    napi_throw_range_error(env, NULL, text);
    return false;
}

static bool is_absent(napi_env env, napi_value value)
{
    napi_valuetype type;
    return napi_typeof(env, value, &type) != napi_ok || type == napi_undefined || type == napi_null;
}

static bool read_scalar(napi_env env, napi_value value, int i, arguments *a)
{
    const char *name = table[i].name;
    double number;
    if (is_absent(env, value))
        return true;
    if (table[i].kind == FLAG)
        return napi_get_value_bool(env, value, &a->flag[i]) == napi_ok || fail(env, name, "true or false");
    if (napi_get_value_double(env, value, &number) != napi_ok)
        return fail(env, name, "a number");
    if (table[i].kind == NUMBER)
        return a->number[i] = number, true;
    /* From 0 to Number.MAX_SAFE_INTEGER. */
    if (!(number >= 0 && number <= 0x1p53 - 1) || number != floor(number))
        return fail(env, name, "a whole number that is not negative");
    a->size[i] = (size_t)number;
    return true;
}

/* The address of a typed array, if it is of one of two types. */
static bool read_array(napi_env env, napi_value value, int i, napi_typedarray_type type, const char *expected,
                       size_t *length, arguments *a)
{
    static double empty; /* an array of no elements may have no address, which to the library means no array */
    napi_typedarray_type found;
    bool is_array = false;
    if (napi_is_typedarray(env, value, &is_array) != napi_ok || !is_array ||
        napi_get_typedarray_info(env, value, &found, length, &a->data[i], NULL, NULL) != napi_ok || found != type)
        return fail(env, table[i].name, expected);
    if (*length == 0)
        a->data[i] = &empty;
    return true;
}

static size_t times(size_t a, size_t b)
{
    size_t product;
    return __builtin_mul_overflow(a, b, &product) ? SIZE_MAX : product; /* which no array has */
}

/* The extents of arrays with strides: sizes has one number for each axis, and strides a row for each tensor. */
static bool find_extents(napi_env env, const napi_value *values, arguments *a)
{
    static const char longs[] = "a BigInt64Array";
    size_t rank, count;
    a->is_strided = !is_absent(env, values[P_sizes]);
    if (!a->is_strided) {
        a->shape = (bn_shape)BN_SHAPE(a->size[P_outer], a->size[P_channels], a->size[P_inner]);
        return true;
    }
    if (!read_array(env, values[P_sizes], P_sizes, napi_bigint64_array, longs, &rank, a) ||
        !read_array(env, values[P_strides], P_strides, napi_bigint64_array, longs, &count, a))
        return false;
    if (count != times(rank, TENSORS))
        return fail_length(env, "strides", count, times(rank, TENSORS));
    bn_status status = bn_shape_from_strides(rank, a->data[P_sizes], a->size[P_axis], 1, TENSORS, a->data[P_strides],
                                             a->size[P_groups] != 0, &a->shape, a->outer_strides);
    if (status != BN_OK) {
        char code[16];
        snprintf(code, sizeof code, "%d", (int)status);
        napi_throw_error(env, code, bn_last_error());
        return false;
    }
    return true;
}

/* The elements of a tensor from its first to its last. */
static size_t span(const arguments *a, int i)
{
    size_t slice = times(a->shape.channels, a->shape.inner), stride = a->outer_strides[i - P_x], before;
    if (a->shape.outer == 0 || slice == 0)
        return 0;
    before = times(a->shape.outer - 1, stride ? stride : slice);
    return before > SIZE_MAX - slice ? SIZE_MAX : before + slice;
}

static size_t expected_length(const arguments *a, int i)
{
    size_t channels = a->shape.channels;
    switch (table[i].kind) {
    case TENSOR: return span(a, i);
    case PARAMETER: return times(channels, a->size[P_perGroup] & BN_PER_GROUP_PARAMETERS ? a->size[P_groups] : 1);
    case RUNNING: return times(channels, a->size[P_perGroup] & BN_PER_GROUP_RUNNING ? a->size[P_groups] : 1);
    case STATISTIC: return times(channels, a->size[P_perGroup] & BN_PER_GROUP_STATISTICS ? a->size[P_groups] : 1);
    case WEIGHT: return times(a->shape.outer, a->shape.inner);
    /* Of a tensor whose elements fit in memory, as x's length is checked before. */
    case BITS: return (a->shape.outer * channels * a->shape.inner + 7) / 8;
    case INDICES: return a->size[P_samples];
    default: return channels;
    }
}

static bool read_elements(napi_env env, napi_value value, int i, arguments *a)
{
    static const napi_typedarray_type types[] = {0, napi_float32_array, napi_float64_array, napi_uint16_array,
                                                 napi_uint16_array};
    static const char *const names[] = {"", "a Float32Array", "a Float64Array", "a Uint16Array", "a Uint16Array"};
    bn_dtype dtype = a->dtype;
    napi_typedarray_type type = napi_uint8_array;
    const char *expected = "a Uint8Array";
    size_t length, wanted = expected_length(a, i);
    if (is_absent(env, value))
        return true;
    if (table[i].kind == INDICES)
        type = napi_int32_array, expected = "an Int32Array";
    else if (table[i].kind != BITS) {
        if (table[i].kind == STATISTIC || table[i].kind == ROW)
            dtype = BN_FLOAT64;
        else if (table[i].kind != TENSOR && dtype > BN_FLOAT64)
            dtype = BN_FLOAT32;
        type = types[dtype], expected = names[dtype];
    }
    if (!read_array(env, value, i, type, expected, &length, a))
        return false;
    /* One with strides may be longer than what they reach. */
    bool is_view = a->is_strided && table[i].kind == TENSOR;
    return (is_view ? length >= wanted : length == wanted) || fail_length(env, table[i].name, length, wanted);
}

static bool find_dtype(napi_env env, napi_value x, arguments *a)
{
    napi_typedarray_type type;
    bool is_array = false;
    if (a->size[P_dtype] != 0)
        a->dtype = a->size[P_dtype] == 3 ? BN_FLOAT16 : BN_BFLOAT16;
    else if (napi_is_typedarray(env, x, &is_array) == napi_ok && is_array &&
             napi_get_typedarray_info(env, x, &type, NULL, NULL, NULL, NULL) == napi_ok &&
             (type == napi_float32_array || type == napi_float64_array))
        a->dtype = type == napi_float32_array ? BN_FLOAT32 : BN_FLOAT64;
    return a->dtype != 0 || fail(env, "x", "a Float32Array or a Float64Array, or a Uint16Array and its dtype");
}

static void fill_structures(arguments *a)
{
    size_t *strides = a->outer_strides;
    a->shape.x_stride = strides[P_x - P_x];
    a->shape.y_stride = strides[(a->data[P_dy] ? P_dy : P_y) - P_x];
    a->shape.dx_stride = strides[P_dx - P_x];
    a->weights = (bn_weights){sizeof a->weights, a->data[P_weights], (bn_masked)a->size[P_masked], 0};
    if (a->data[P_weights])
        a->shape.weights = &a->weights;
    a->epilogue = (bn_epilogue){sizeof a->epilogue, (bn_activation)a->size[P_activation], 0, a->number[P_slope],
                                a->number[P_low], a->number[P_high], a->data[P_residual], strides[P_residual - P_x],
                                a->data[P_dz], strides[P_dz - P_x], a->data[P_mask]};
    a->groups = (bn_groups){sizeof a->groups, a->size[P_samples], a->size[P_groups], a->data[P_index],
                            a->flag[P_interleaved], (int32_t)a->size[P_perGroup], a->flag[P_averaged], 0};
    a->options = (bn_options)BN_OPTIONS_INIT;
    a->options.eps = a->number[P_eps];
    a->options.momentum = a->number[P_momentum];
    a->options.biased_running_var = a->flag[P_biasedRunningVar];
    a->options.frozen = a->flag[P_frozen];
    a->options.epilogue = &a->epilogue;
    a->options.groups = a->size[P_groups] ? &a->groups : NULL;
}

/* The object has no getters: nothing foreign runs between the first address that is taken and the call. */
static bool read_arguments(napi_env env, napi_callback_info info, arguments *a)
{
    size_t count = 1;
    napi_value object, values[PROPERTIES];
    *a = (arguments){.number = {[P_eps] = 1e-5, [P_momentum] = 0.1, [P_slope] = 0.01, [P_high] = 6}};
    if (napi_get_cb_info(env, info, &count, &object, NULL, NULL) != napi_ok)
        return false;
    for (int i = 0; i < PROPERTIES; i++)
        if (napi_get_named_property(env, object, table[i].name, &values[i]) != napi_ok)
            return false;
    for (int i = 0; i < P_sizes; i++)
        if (!read_scalar(env, values[i], i, a))
            return false;
    if (!find_extents(env, values, a) || !find_dtype(env, values[P_x], a))
        return false;
    for (int i = P_x; i < PROPERTIES; i++)
        if (!read_elements(env, values[i], i, a))
            return false;
    fill_structures(a);
    return true;
}

/* Throws unless the status is BN_OK. */
static napi_value done(napi_env env, bn_status status)
{
    char code[16];
    snprintf(code, sizeof code, "%d", (int)status);
    if (status != BN_OK)
        napi_throw_error(env, code, bn_last_error());
    return NULL;
}

static napi_value forward_training(napi_env env, napi_callback_info info)
{
    arguments a;
    if (!read_arguments(env, info, &a))
        return NULL;
    void **d = a.data;
    return done(env, bn_forward_training(&a.shape, a.dtype, d[P_x], d[P_gamma], d[P_beta], d[P_runningMean],
                                         d[P_runningVar], d[P_y], d[P_mean], d[P_invstd], &a.options));
}

static napi_value forward_inference(napi_env env, napi_callback_info info)
{
    arguments a;
    if (!read_arguments(env, info, &a))
        return NULL;
    void **d = a.data;
    return done(env, bn_forward_inference(&a.shape, a.dtype, d[P_x], d[P_gamma], d[P_beta], d[P_runningMean],
                                          d[P_runningVar], d[P_y], d[P_mean], d[P_invstd], &a.options));
}

static napi_value backward(napi_env env, napi_callback_info info)
{
    arguments a;
    if (!read_arguments(env, info, &a))
        return NULL;
    void **d = a.data;
    return done(env, bn_backward(&a.shape, a.dtype, d[P_dy], d[P_x], d[P_gamma], d[P_beta], d[P_mean], d[P_invstd],
                                 d[P_dx], d[P_dgamma], d[P_dbeta], &a.options));
}

static napi_value moments(napi_env env, napi_callback_info info)
{
    arguments a;
    if (!read_arguments(env, info, &a))
        return NULL;
    return done(env, bn_moments(&a.shape, a.dtype, a.data[P_x], a.data[P_count], a.data[P_mean], a.data[P_m2], 0,
                                NULL));
}

/* setNumThreads(threads): 1 to 1024, or 0 for the default. */
static napi_value set_num_threads(napi_env env, napi_callback_info info)
{
    size_t count = 1;
    napi_value value;
    int32_t threads;
    double number;
    napi_get_cb_info(env, info, &count, &value, NULL, NULL);
    /* Node reduces a number to an int32 modulo 2^32, so the two are compared. */
    if (napi_get_value_int32(env, value, &threads) != napi_ok ||
        napi_get_value_double(env, value, &number) != napi_ok || number != threads) {
        fail(env, "threads", "a whole number of 32 bits");
        return NULL;
    }
    return done(env, bn_set_num_threads(threads));
}

/* version(): major * 10000 + minor * 100 + patch of the library that was loaded. */
static napi_value version(napi_env env, napi_callback_info info)
{
    napi_value value;
    (void)info;
    return napi_create_int32(env, bn_version(), &value) == napi_ok ? value : NULL;
}

NAPI_MODULE_INIT()
{
    static const napi_property_descriptor functions[] = {
        {"forwardTraining", NULL, forward_training, NULL, NULL, NULL, napi_enumerable, NULL},
        {"forwardInference", NULL, forward_inference, NULL, NULL, NULL, napi_enumerable, NULL},
        {"backward", NULL, backward, NULL, NULL, NULL, napi_enumerable, NULL},
        {"moments", NULL, moments, NULL, NULL, NULL, napi_enumerable, NULL},
        {"setNumThreads", NULL, set_num_threads, NULL, NULL, NULL, napi_enumerable, NULL},
        {"version", NULL, version, NULL, NULL, NULL, napi_enumerable, NULL},
    };
    int v = bn_version();
    if (v / 10000 != 2 || v < 20000) {
        char text[128];
        snprintf(text, sizeof text, "libbatchnorm 2.0 or a later 2.x is needed, but libbatchnorm.so.2 is %d.%d.%d",
                 v / 10000, v / 100 % 100, v % 100);
        napi_throw_error(env, NULL, text);
        return NULL;
    }
    napi_define_properties(env, exports, sizeof functions / sizeof *functions, functions);
    return exports;
}
