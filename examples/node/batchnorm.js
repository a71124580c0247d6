// SPDX-License-Identifier: Apache-2.0
/**
 * libbatchnorm for Node.js: functions of one object each, whose properties have the names of batchnorm.h's arguments.
 *
 *     const saved = forwardTraining({ outer, channels, inner, x, y, gamma, beta, runningMean, runningVar, eps, ... });
 *     backward({ dy, x, saved, dx, dgamma, dbeta });
 *
 * Tensors are Float32Array or Float64Array, or Uint16Array with a dtype of "float16" or "bfloat16"; parameters are alike,
 * and Float32Array beside 16 bits. A tensor with strides is a view, { data, shape, strides, axis }: x as a view has
 * outer, channels and inner in it, and the other tensors lie as x does, unless they are views as well. native.c makes
 * the calls.
 */
"use strict";

const native = require("./native.node");

const ACTIVATIONS = { identity: 0, relu: 1, leakyRelu: 2, clip: 3, hardSwish: 4, silu: 5 };
const MASKED = { normalize: 0, zero: 1, keep: 2 };
const PER_GROUP = { statistics: 1, running: 2, parameters: 4 };
const DTYPES = { float16: 3, bfloat16: 4 };
const TENSORS = ["x", "y", "dy", "dx", "residual", "dz"]; // in the order of native.c

const SHAPE = ["outer", "channels", "inner", "dtype"];
const EPILOGUE = ["activation", "slope", "low", "high", "residual", "saveMask"];
const ARRAYS = ["x", "y", "gamma", "beta", "runningMean", "runningVar", "weights"];
const FORWARD = [...SHAPE, ...EPILOGUE, ...ARRAYS, "eps", "groups", "masked"];
const TRAINING = [...FORWARD, "momentum", "biasedRunningVar"];
const BACKWARD = ["dy", "x", "saved", "dx", "dgamma", "dbeta", "dz"];
const FOR_FORWARD = ["x", "y", "runningMean", "runningVar", "eps", "momentum", "biasedRunningVar", "strides", "sizes"];
const IN_SAVED = [...TRAINING, "mean", "invstd", "mask", "frozen"];

/** What forward calls returned, each with the arguments that backward has from it. */
const known = new WeakMap();

const fail = (name, expected) => {
    throw new TypeError(`${name}: expected ${expected}`);
};

/** The one object of a call, read once. */
function only(given, names) {
    if (given === null || typeof given !== "object") fail("arguments", "one object");
    const copy = { ...given };
    const isSaved = (name) => names.includes("saved") && IN_SAVED.includes(name);
    for (const name in copy) {
        if (!names.includes(name)) fail(name, isSaved(name) ? "none, as saved has it" : "no argument of that name");
    }
    return copy;
}

function numberOf(names, name, value, otherwise) {
    if (value === undefined) return otherwise;
    return Object.hasOwn(names, value) ? names[value] : fail(name, Object.keys(names).join(", "));
}

const isView = (value) => value !== null && typeof value === "object" && !ArrayBuffer.isView(value);
const longs = (name, list) => {
    if (!Array.isArray(list) || !list.every(Number.isSafeInteger)) fail(name, "an array of whole numbers");
    return list.map(BigInt);
};

/** Puts arrays in the place of views, and what these say beside them; `layout` is that of the forward call's x. */
function unpack(given, layout) {
    if (!layout && !isView(given.x)) return { ...given };
    const { data, shape, strides, axis = 1 } = layout ?? given.x;
    const sizes = longs("x.shape", shape);
    const [flat, rows] = [{ ...given, axis, sizes: BigInt64Array.from(sizes) }, []];
    const ofX = longs("x.strides", strides);
    for (const name of TENSORS) {
        const view = isView(given[name]) ? given[name] : { data: given[name], shape, strides };
        if (String(view.shape) !== String(shape)) fail(`${name}.shape`, `${shape}, as x has`);
        const row = view.strides === strides ? ofX : longs(`${name}.strides`, view.strides);
        if (row.length !== sizes.length) fail(`${name}.strides`, `${sizes.length} numbers`);
        flat[name] = view.data;
        rows.push(...row);
    }
    return { ...flat, strides: BigInt64Array.from(rows), layout: { shape: [...shape], strides: [...strides], axis } };
}

/** Groups as native.c takes them: by default as many samples as x's first extent. */
function groupsOf(groups, samplesOf) {
    if (groups === undefined) return {};
    const { count, index, samples = index?.length ?? samplesOf, perGroup = ["statistics"], ...others } = { ...groups };
    const { interleaved, averaged, ...unknown } = others;
    for (const name in unknown) fail(`groups.${name}`, "no argument of that name");
    if (!(Number.isSafeInteger(count) && count > 0)) fail("groups.count", "a whole number above 0");
    const kinds = perGroup.reduce((sum, kind) => sum | numberOf(PER_GROUP, "groups.perGroup", kind), 0);
    return { groups: count, samples, index: index?.slice(), perGroup: kinds, interleaved, averaged };
}

function forward(call, given, frozen) {
    const { groups, activation, masked, dtype, saveMask = false, layout, ...flat } = unpack(given);
    const sizes = layout ? layout.shape : [flat.outer, flat.channels, flat.inner];
    const ofGroups = groupsOf(groups, sizes[0]);
    const settings = {
        ...flat, ...ofGroups, frozen: false,
        activation: numberOf(ACTIVATIONS, "activation", activation, 0),
        masked: numberOf(MASKED, "masked", masked, 0),
        dtype: numberOf(DTYPES, "dtype", dtype, 0),
        weights: flat.weights?.slice(),
    };
    if (typeof saveMask !== "boolean") fail("saveMask", "true or false");
    if (saveMask) settings.mask = new Uint8Array(Math.ceil(sizes.reduce((product, size) => product * size, 1) / 8));
    const rows = (sizes[layout?.axis ?? 1] ?? 0) * (ofGroups.perGroup & PER_GROUP.statistics ? ofGroups.groups : 1);
    Object.assign(settings, { mean: new Float64Array(rows), invstd: new Float64Array(rows) });
    // Copies: what gamma and beta are now, not what they will be when backward is called.
    const isArray = (value) => value instanceof Float32Array || value instanceof Float64Array;
    const [gamma, beta] = [flat.gamma, flat.beta].map((array) => (isArray(array) ? array.slice() : array));
    call(settings);
    const kept = { ...settings, gamma, beta, frozen, layout, residual: saveMask ? undefined : given.residual };
    for (const name of FOR_FORWARD) delete kept[name];
    const saved = Object.freeze({ mean: kept.mean, invstd: kept.invstd, mask: kept.mask ?? null, frozen });
    known.set(saved, kept);
    return saved;
}

/** Normalizes x into y, which may be x, with the statistics of the batch, and updates runningMean and runningVar. */
function forwardTraining(given) {
    return forward(native.forwardTraining, only(given, TRAINING), false);
}

/** Like forwardTraining, but with the running statistics, which stay as they are, and are constants to the gradient. */
function forwardInference(given) {
    return forward(native.forwardInference, only(given, FORWARD), true);
}

/**
 * Writes the gradients with respect to x, gamma, beta and the residual to dx, which may be dy, dgamma, dbeta and dz, as
 * far as they are given. x is that of the forward call that returned saved, as it was then: if y took its place, a copy.
 * The residual has to be as it was, too, unless there is a mask: saved refers to it.
 */
function backward(given) {
    const { saved, ...tensors } = only(given, BACKWARD);
    const kept = known.get(saved);
    if (!kept) fail("saved", "what forwardTraining or forwardInference returned");
    const { layout, ...settings } = kept;
    const { layout: _, ...flat } = unpack({ ...settings, ...tensors }, layout);
    native.backward(flat);
}

/** Writes the number of values, the mean, and the sum of squared deviations from it to count, mean and m2. */
function moments(given) {
    const { dtype, layout, ...flat } = unpack(only(given, [...SHAPE, "x", "count", "mean", "m2"]));
    native.moments({ ...flat, dtype: numberOf(DTYPES, "dtype", dtype, 0) });
}

const { setNumThreads, version } = native;
module.exports = { forwardTraining, forwardInference, backward, moments, setNumThreads, version };
