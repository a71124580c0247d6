// SPDX-License-Identifier: Apache-2.0
// Part of batchnorm.js: tensors as views, { data, shape, strides, axis }. The library finds out how their memory lies.
const TENSORS = ["x", "y", "residual", "dy", "dx"];
const VIEW = ["data", "shape", "strides", "axis"];
const isView = (value) => Object(value) === value && !ArrayBuffer.isView(value) && "data" in value;
const isWhole = (value) => Number.isSafeInteger(value);

/** A view with all of its properties, read once. */
function viewOf(name, given, { axis: ofOthers = 1 } = {}) {
    const { data, shape, strides, axis = ofOthers, ...others } = given;
    const [unknown] = Object.keys(others);
    if (unknown !== undefined) {
        throw new TypeError(`${name}.${unknown} is no part of a view; expected ${VIEW.join(", ")}`);
    }
    const list = (what, list) => {
        if (!isList(list)) throw unlike(TypeError, what, list, "an array of numbers");
        const place = Array.prototype.findIndex.call(list, (value) => !isWhole(value));
        if (place >= 0) throw unlike(TypeError, `${what}[${place}]`, list[place], "a whole number");
        return Object.freeze(Array.from(list));
    };
    const [sizes, taken] = [list(`${name}.shape`, shape), list(`${name}.strides`, strides)];
    if (taken.length !== sizes.length) throw unlike(RangeError, `${name}.strides.length`, taken.length, sizes.length);
    if (!isWhole(axis) || axis < 0) throw unlike(TypeError, `${name}.axis`, axis, "a whole number, at least 0");
    return { data, layout: Object.freeze({ shape: sizes, strides: taken, axis }) };
}

/**
 * The tensors of a call as arrays, and how each lies in memory, if `x` is a view or `kept` is the layout of the forward
 * call's x: the others have its shape, and lie as it does unless they are views as well.
 */
function tensorsOf(given, kept) {
    if (kept === null && !isView(given.x)) return { layouts: null, arrays: given };
    if (kept === null && given.shape !== undefined) throw unlike(TypeError, "shape", given.shape, "none, as x has one");
    if (kept !== null) kept = viewOf("saved.layout", kept).layout;
    const [arrays, layouts] = [{ ...given }, {}];
    for (const name of TENSORS) {
        layouts[name] = kept ?? layouts.x;
        if (!isView(given[name])) continue;
        const { data, layout } = viewOf(name, given[name], layouts[name]);
        const first = layouts[name] ?? layout;
        for (const what of ["shape", "axis"]) {
            if (String(layout[what]) === String(first[what])) continue;
            throw unlike(RangeError, `${name}.${what}`, String(layout[what]), `${first[what]}, as that of x`);
        }
        arrays[name] = data;
        layouts[name] = layout;
    }
    return { layouts, arrays };
}

/** The extents of a call and the outer strides of its tensors, by the library; null if it refuses. */
function extentsOf(exports, layouts, names, areSamplesOutermost) {
    const { shape, axis } = layouts.x;
    const rank = shape.length;
    const [count, isOrdered] = [names.length, Number(areSamplesOutermost)];
    const rows = [shape, ...names.map((name) => layouts[name].strides)];
    const block = exports.aligned_alloc(LINE, Math.ceil((8 * rank * rows.length) / LINE) * LINE || LINE);
    if (block === 0) throw new BatchNormError("memory for strides could not be had", OUT_OF_MEMORY);
    try {
        const numbers = new BigInt64Array(exports.memory.buffer, block, rank * rows.length);
        rows.flat().forEach((number, i) => (numbers[i] = BigInt(number)));
        const found = exports.module_extents(rank, block, axis, count, block + 8 * rank, isOrdered);
        if (found === 0) return null;
        const [outer, channels, inner, ...strides] = new Uint32Array(exports.memory.buffer, found, 3 + count);
        const ofNames = Object.fromEntries(names.map((name, i) => [name, strides[i]]));
        return { extents: [outer, channels, inner], strides: ofNames };
    } finally {
        exports.free(block);
    }
}
