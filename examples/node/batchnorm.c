/* SPDX-License-Identifier: Apache-2.0
 *
 * libbatchnorm for Node.js: functions of one object each, whose properties have the names of batchnorm.h's arguments.
 *
 *     const saved = forwardTraining({ outer, channels, inner, x, y, gamma, beta, runningMean, runningVar, eps, ... });
 *     backward({ dy, x, saved, dx, dgamma, dbeta });
 *
 * Float32Array or Float64Array, all tensors and parameters alike; mean, invstd and moments are Float64Array. Arrays are
 * read and written where they are, without a copy. Each is as long as the shape says, or the call throws a RangeError:
 * C would go past its end. A refusal of the library is an Error with the library's sentence, whose code is the status.
 */
#define NAPI_VERSION 8 /* objects that are tagged and frozen */

#include <batchnorm.h>
#include <node_api.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* The arguments that a function may be given, in this order. */
enum {
    OUTER, CHANNELS, INNER, EPS, MOMENTUM, BIASED_RUNNING_VAR, FROZEN,
    X, Y, DY, DX, GAMMA, BETA, RUNNING_MEAN, RUNNING_VAR, DGAMMA, DBETA,
    MEAN, INVSTD, COUNT, M2, SAVED,
    PROPERTIES
};

static const char *const names[PROPERTIES] = {
    "outer", "channels", "inner", "eps", "momentum", "biasedRunningVar", "frozen",
    "x", "y", "dy", "dx", "gamma", "beta", "runningMean", "runningVar", "dgamma", "dbeta",
    "mean", "invstd", "count", "m2", "saved",
};

/* Sets of them. */
#define BIT(property) (1u << (property))
enum {
    SHAPE = BIT(OUTER) | BIT(CHANNELS) | BIT(INNER),
    IN_SAVED = SHAPE | BIT(GAMMA) | BIT(BETA) | BIT(MEAN) | BIT(INVSTD) | BIT(FROZEN),
    OF_FORWARD = SHAPE | BIT(X) | BIT(Y) | BIT(GAMMA) | BIT(BETA) | BIT(RUNNING_MEAN) | BIT(RUNNING_VAR) | BIT(EPS),
    OF_TRAINING = OF_FORWARD | BIT(MOMENTUM) | BIT(BIASED_RUNNING_VAR),
    OF_BACKWARD = BIT(DY) | BIT(X) | BIT(SAVED) | BIT(DX) | BIT(DGAMMA) | BIT(DBETA),
    OF_MOMENTS = SHAPE | BIT(X) | BIT(COUNT) | BIT(MEAN) | BIT(M2),
};

/* A tag that only a forward call can put on an object. */
static const napi_type_tag saved_tag = {0x5ba7c4e0d1f94b33, 0x9e0c6a1f27d8b541};

typedef struct arguments {
    bn_shape shape;
    bn_options options;
    bn_dtype dtype;
    void *data[PROPERTIES]; /* of the arrays; NULL for none */
} arguments;

static bool fail(napi_env env, const char *name, const char *expected)
{
    char text[128];
    snprintf(text, sizeof text, "%s: expected %s", name, expected);
    napi_throw_type_error(env, NULL, text);
    return false;
}

/* An integer from 0 to Number.MAX_SAFE_INTEGER. */
static bool read_size(napi_env env, napi_value value, const char *name, size_t *size)
{
    double number;
    if (napi_get_value_double(env, value, &number) != napi_ok || !(number >= 0 && number <= 0x1p53 - 1) ||
        number != floor(number))
        return fail(env, name, "a whole number that is not negative");
    *size = (size_t)number;
    return true;
}

static bool read_number(napi_env env, napi_value value, const char *name, double *number)
{
    napi_valuetype type;
    napi_typeof(env, value, &type);
    return type == napi_undefined || napi_get_value_double(env, value, number) == napi_ok ||
           fail(env, name, "a number");
}

static bool read_flag(napi_env env, napi_value value, const char *name, int32_t *flag)
{
    napi_valuetype type;
    bool set = false;
    napi_typeof(env, value, &type);
    if (type != napi_undefined && napi_get_value_bool(env, value, &set) != napi_ok)
        return fail(env, name, "true or false");
    *flag = set;
    return true;
}

/* The number of elements that an array has to have; SIZE_MAX, which none has, if it overflows. */
static size_t expected_length(const bn_shape *shape, int property)
{
    size_t size;
    if (property > DX)
        return shape->channels;
    if (__builtin_mul_overflow(shape->outer, shape->channels, &size) ||
        __builtin_mul_overflow(size, shape->inner, &size))
        return SIZE_MAX;
    return size;
}

static bool read_array(napi_env env, napi_value value, int property, arguments *a)
{
    static double empty; /* an array of no elements may have no address, which to the library means no array */
    napi_valuetype kind;
    napi_typedarray_type type;
    size_t length, expected = expected_length(&a->shape, property);
    bool is_array = false;

    napi_typeof(env, value, &kind);
    if (kind == napi_undefined || kind == napi_null)
        return true;
    if (napi_is_typedarray(env, value, &is_array) != napi_ok || !is_array ||
        napi_get_typedarray_info(env, value, &type, &length, &a->data[property], NULL, NULL) != napi_ok ||
        (type != napi_float32_array && type != napi_float64_array))
        return fail(env, names[property], "a Float32Array or a Float64Array");

    bn_dtype dtype = type == napi_float32_array ? BN_FLOAT32 : BN_FLOAT64;
    if (property >= MEAN && dtype != BN_FLOAT64)
        return fail(env, names[property], "a Float64Array");
    if (property < MEAN && a->dtype == 0)
        a->dtype = dtype;
    if (property < MEAN && a->dtype != dtype)
        return fail(env, names[property], "the type of the arrays before it");

    if (length != expected) {
        char text[128];
        snprintf(text, sizeof text, "%s has %zu elements, expected %zu", names[property], length, expected);
        napi_throw_range_error(env, NULL, text);
        return false;
    }
    if (length == 0)
        a->data[property] = &empty;
    return true;
}

/* Checks that an object has these properties and no others: the caller should hear of one that is not read. */
static bool check_names(napi_env env, napi_value object, unsigned taken)
{
    napi_value list;
    uint32_t count = 0;
    if (napi_get_property_names(env, object, &list) != napi_ok || napi_get_array_length(env, list, &count) != napi_ok)
        return false;
    for (uint32_t k = 0; k < count; k++) {
        napi_value key;
        char name[64] = "";
        size_t length;
        int i = 0;
        if (napi_get_element(env, list, k, &key) != napi_ok ||
            napi_get_value_string_utf8(env, key, name, sizeof name, &length) != napi_ok)
            return false;
        while (i < PROPERTIES && strcmp(name, names[i]) != 0)
            i++;
        if (i < PROPERTIES && (taken & BIT(i)))
            continue;
        return fail(env, name, i < PROPERTIES && (taken & BIT(SAVED)) && (IN_SAVED & BIT(i))
                                   ? "none, as saved has it" : "no argument of that name");
    }
    return true;
}

/* Fetches all properties before the first is looked into: a getter is foreign code, which could take the memory of an
 * array away whose address is already known. Those of a saved object are among them, by their own names. */
static bool fetch(napi_env env, napi_callback_info info, unsigned taken, napi_value *values)
{
    size_t count = 1;
    napi_value object, undefined, more;
    napi_valuetype kind;
    bool is_saved = false;
    if (napi_get_cb_info(env, info, &count, &object, NULL, NULL) != napi_ok ||
        napi_get_undefined(env, &undefined) != napi_ok || napi_typeof(env, object, &kind) != napi_ok)
        return false;
    if (kind != napi_object)
        return fail(env, "arguments", "one object");
    if (!check_names(env, object, taken))
        return false;
    for (int i = 0; i < PROPERTIES; i++) {
        values[i] = undefined;
        if ((taken & BIT(i)) && napi_get_named_property(env, object, names[i], &values[i]) != napi_ok)
            return false;
    }
    if (!(taken & BIT(SAVED)))
        return true;
    more = values[SAVED];
    napi_typeof(env, more, &kind);
    if (kind != napi_object || napi_check_object_type_tag(env, more, &saved_tag, &is_saved) != napi_ok || !is_saved)
        return fail(env, "saved", "what forwardTraining or forwardInference returned");
    for (int i = 0; i < PROPERTIES; i++)
        if ((IN_SAVED & BIT(i)) && napi_get_named_property(env, more, names[i], &values[i]) != napi_ok)
            return false;
    return true;
}

static bool read_arguments(napi_env env, const napi_value *values, arguments *a)
{
    *a = (arguments){.shape = BN_SHAPE(0, 0, 0), .options = BN_OPTIONS_INIT};
    if (!read_size(env, values[OUTER], names[OUTER], &a->shape.outer) ||
        !read_size(env, values[CHANNELS], names[CHANNELS], &a->shape.channels) ||
        !read_size(env, values[INNER], names[INNER], &a->shape.inner) ||
        !read_number(env, values[EPS], names[EPS], &a->options.eps) ||
        !read_number(env, values[MOMENTUM], names[MOMENTUM], &a->options.momentum) ||
        !read_flag(env, values[BIASED_RUNNING_VAR], names[BIASED_RUNNING_VAR], &a->options.biased_running_var) ||
        !read_flag(env, values[FROZEN], names[FROZEN], &a->options.frozen))
        return false;
    for (int i = X; i < SAVED; i++)
        if (!read_array(env, values[i], i, a))
            return false;
    if (a->dtype == 0)
        return fail(env, "x", "a Float32Array or a Float64Array");
    return true;
}

/* new Type(argument), by the language's own constructor: it throws where there is no memory. */
static bool construct(napi_env env, const char *type, napi_value argument, napi_value *value)
{
    napi_value global, constructor;
    return napi_get_global(env, &global) == napi_ok &&
           napi_get_named_property(env, global, type, &constructor) == napi_ok &&
           napi_new_instance(env, constructor, 1, &argument, value) == napi_ok;
}

/* A copy of gamma or beta as it is now. A value that is no such array is left as it is, for read_array to refuse. */
static bool copied(napi_env env, napi_value array, napi_value *copy)
{
    bool is_array = false;
    napi_typedarray_type type;
    *copy = array;
    if (napi_is_typedarray(env, array, &is_array) != napi_ok || !is_array ||
        napi_get_typedarray_info(env, array, &type, NULL, NULL, NULL, NULL) != napi_ok ||
        (type != napi_float32_array && type != napi_float64_array))
        return true;
    return construct(env, type == napi_float32_array ? "Float32Array" : "Float64Array", array, copy);
}

/* The values that backward needs. Made before any address is known, as constructors are foreign code, too. */
static bool make_saved(napi_env env, napi_value *values, bool frozen, napi_value *saved)
{
    napi_value kept[PROPERTIES];
    size_t channels;
    if (!read_size(env, values[CHANNELS], names[CHANNELS], &channels) ||
        !construct(env, "Float64Array", values[CHANNELS], &values[MEAN]) ||
        !construct(env, "Float64Array", values[CHANNELS], &values[INVSTD]) ||
        napi_get_boolean(env, frozen, &values[FROZEN]) != napi_ok || napi_create_object(env, saved) != napi_ok)
        return false;
    for (int i = 0; i < PROPERTIES; i++)
        kept[i] = values[i];
    if (!copied(env, values[GAMMA], &kept[GAMMA]) || !copied(env, values[BETA], &kept[BETA]))
        return false;
    for (int i = 0; i < PROPERTIES; i++)
        if ((IN_SAVED & BIT(i)) && napi_set_named_property(env, *saved, names[i], kept[i]) != napi_ok)
            return false;
    return napi_type_tag_object(env, *saved, &saved_tag) == napi_ok && napi_object_freeze(env, *saved) == napi_ok;
}

/* Throws unless the status is BN_OK. */
static napi_value done(napi_env env, bn_status status, napi_value result)
{
    char code[16];
    snprintf(code, sizeof code, "%d", (int)status);
    if (status != BN_OK)
        napi_throw_error(env, code, bn_last_error());
    return status == BN_OK ? result : NULL;
}

/* Normalizes x into y, which may be x, with the statistics of the batch, and updates runningMean and runningVar.
 * Returns what backward needs: the shape, mean, invstd, and copies of gamma and beta. */
static napi_value forward_training(napi_env env, napi_callback_info info)
{
    arguments a;
    napi_value values[PROPERTIES], saved;
    if (!fetch(env, info, OF_TRAINING, values) || !make_saved(env, values, false, &saved) ||
        !read_arguments(env, values, &a))
        return NULL;
    void **d = a.data;
    return done(env, bn_forward_training(&a.shape, a.dtype, d[X], d[GAMMA], d[BETA], d[RUNNING_MEAN], d[RUNNING_VAR],
                                         d[Y], d[MEAN], d[INVSTD], &a.options), saved);
}

/* Like forwardTraining, but normalizes with the running statistics, which stay as they are, and are constants to the
 * gradient. */
static napi_value forward_inference(napi_env env, napi_callback_info info)
{
    arguments a;
    napi_value values[PROPERTIES], saved;
    if (!fetch(env, info, OF_FORWARD, values) || !make_saved(env, values, true, &saved) ||
        !read_arguments(env, values, &a))
        return NULL;
    void **d = a.data;
    return done(env, bn_forward_inference(&a.shape, a.dtype, d[X], d[GAMMA], d[BETA], d[RUNNING_MEAN], d[RUNNING_VAR],
                                          d[Y], d[MEAN], d[INVSTD], &a.options), saved);
}

/* Writes the gradients with respect to x, gamma and beta to dx, which may be dy, dgamma and dbeta, as far as they are
 * given. x is that of the forward call that returned saved, as it was then: if y took its place, a copy. */
static napi_value backward(napi_env env, napi_callback_info info)
{
    arguments a;
    napi_value values[PROPERTIES];
    if (!fetch(env, info, OF_BACKWARD, values) || !read_arguments(env, values, &a))
        return NULL;
    void **d = a.data;
    return done(env, bn_backward(&a.shape, a.dtype, d[DY], d[X], d[GAMMA], d[BETA], d[MEAN], d[INVSTD], d[DX],
                                 d[DGAMMA], d[DBETA], &a.options), NULL);
}

/* Writes the number of values, the mean, and the sum of squared deviations from it to count, mean and m2. */
static napi_value moments(napi_env env, napi_callback_info info)
{
    arguments a;
    napi_value values[PROPERTIES];
    if (!fetch(env, info, OF_MOMENTS, values) || !read_arguments(env, values, &a))
        return NULL;
    return done(env, bn_moments(&a.shape, a.dtype, a.data[X], a.data[COUNT], a.data[MEAN], a.data[M2]), NULL);
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
    return done(env, bn_set_num_threads(threads), NULL);
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
