// SPDX-License-Identifier: Apache-2.0
// Tensors as views, and groups and weights: what is refused, and where results lie.
import { batch, check, checkSame, size, throws } from "./assertions.mjs";

const nhwc = (data, more) => ({ data, shape: [4, 3, 6], strides: [18, 1, 3], ...more });
const sliced = (data, more) => ({ data, shape: [2, 3, 6], strides: [36, 6, 1], ...more });

export const viewChecks = {
    "a view is the same tensor as its array": ({ bn }) => {
        const [x, dy] = [batch(0), batch(1)];
        const [of, as] = [bn.forwardTraining({ x, shape: [24, 3, 1] }), bn.forwardTraining({ x: nhwc(x) })];
        checkSame(as.y.data, of.y, undefined, "y");
        check(as.y.strides.join() === "18,1,3" && as.y.shape.join() === "4,3,6" && as.y.axis === 1, "y as a view");
        check(as.saved.shape.join() === "24,3,1" && as.saved.layout.strides.join() === "18,1,3", "saved");
        const expected = bn.backward({ dy, x, saved: of.saved });
        for (const saved of [as.saved, structuredClone(as.saved)]) {
            for (const tensors of [{ dy, x }, { dy: nhwc(dy), x: nhwc(x) }, { dy: nhwc(dy), x }]) {
                checkSame(bn.backward({ ...tensors, saved }).dx.data, expected.dx, undefined, "dx");
            }
        }
        checkSame(bn.moments({ x: nhwc(x) }).mean, of.saved.mean, undefined, "mean");
        // In place, and longer than what it reaches.
        const longer = Float32Array.of(...x, 99);
        const inPlace = bn.forwardTraining({ x: nhwc(longer), y: nhwc(longer) });
        check(inPlace.y.data === longer && longer[size] === 99, "y is another array");
        checkSame(longer.slice(0, size), of.y, undefined, "y in place");
        const overwritten = "x is the array that y was written over; expected x as it was, in memory of its own";
        throws({ name: "RangeError", message: overwritten },
            () => bn.backward({ dy, x: nhwc(longer), saved: inPlace.saved }));
        bn.backward({ dy, x, saved: inPlace.saved });
        const dx = dy.slice();
        check(bn.backward({ dy: dx, x, saved: as.saved, dx }).dx.data === dx, "dx is another array");
        checkSame(dx, expected.dx, undefined, "dx in place");
    },

    "gaps are neither read nor written": ({ bn }) => {
        const dense = Float32Array.from(batch(0).subarray(0, 36));
        const [x, y] = [new Float32Array(size).fill(NaN), new Float32Array(size).fill(5)];
        [0, 1].forEach((i) => x.set(dense.subarray(18 * i, 18 * i + 18), 36 * i));
        const expected = bn.forwardTraining({ x: dense, shape: [2, 3, 6] });
        const isGap = (i) => i % 36 >= 18;
        const checkGaps = (data, value, length) => {
            check(data.length === length && data.every((v, i) => !isGap(i) || v === value), "gaps");
            checkSame(data.filter((_, i) => !isGap(i)), expected.y, undefined, "y");
        };
        checkGaps(bn.forwardTraining({ x: sliced(x) }).y.data, 0, 54);
        checkGaps(bn.forwardTraining({ x: sliced(x), y: sliced(y) }).y.data, 5, size);
        const packed = { ...sliced(new Float32Array(36)), strides: [18, 6, 1] };
        checkSame(bn.forwardTraining({ x: sliced(x), y: packed }).y.data, expected.y, undefined, "dense y");
        const inPlace = x.map((value, i) => (isGap(i) ? 3 : value));
        checkGaps(bn.forwardTraining({ x: sliced(inPlace), y: sliced(inPlace) }).y.data, 3, size);
        // y is a view of x's array, in another place or order.
        const message = "y overlaps x; expected memory of its own";
        throws({ name: "RangeError", message }, () => bn.forwardTraining({ x: sliced(x), y: { ...packed, data: x } }));
    },

    "views that are none": ({ bn }) => {
        const x = batch(0);
        const wrong = (name, message, more, other = {}) => {
            throws({ name, message }, () => bn.forwardTraining({ x: nhwc(x, more), ...other }));
        };
        wrong("TypeError", "x.strides is undefined; expected an array of numbers", { strides: undefined });
        wrong("TypeError", "x.shape is 72; expected an array of numbers", { shape: 72 });
        wrong("TypeError", "x.strides[1] is 0.5; expected a whole number", { strides: [18, 0.5, 3] });
        wrong("TypeError", 'x.shape[2] is "6"; expected a whole number', { shape: [4, 3, "6"] });
        wrong("TypeError", "x.axis is -1; expected a whole number, at least 0", { axis: -1 });
        wrong("RangeError", "x.strides.length is 2; expected 3", { strides: [18, 1] });
        wrong("TypeError", "x.offset is no part of a view; expected data, shape, strides, axis", { offset: 1 });
        wrong("TypeError", "shape is Array; expected none, as x has one", {}, { shape: [4, 3, 6] });
        wrong("RangeError", "x.length is 71; expected 72", { data: x.subarray(1) });
        wrong("RangeError", "y.shape is \"4,6,3\"; expected 4,3,6, as that of x", {},
            { y: nhwc(new Float32Array(size), { shape: [4, 6, 3] }) });
        wrong("RangeError", "y.axis is \"2\"; expected 1, as that of x", {}, { y: nhwc(x, { axis: 2 }) });
        wrong("TypeError", "y is Float64Array; expected Float32Array", {}, { y: nhwc(new Float64Array(size)) });
        wrong("RangeError", "y.length is 71; expected 72", {}, { y: new Float32Array(size - 1) });
        wrong("RangeError", "residual.length is 3; expected 72", {}, { residual: nhwc(new Float32Array(3)) });
        wrong("TypeError", "residual is Array; expected Float32Array", {}, { residual: nhwc([1]) });
        throws({ name: "TypeError" }, () => bn.forwardTraining({ x, shape: [4, 3, 6], y: nhwc(x) }));
        const refused = (message, more) => {
            throws({ name: "BatchNormError", status: 2, message }, () => bn.forwardTraining({ x: nhwc(x, more) }));
        };
        refused("forwardTraining: channelAxis is 3; expected an axis, from 0 to rank - 1", { axis: 3 });
        refused("forwardTraining: rank is 0; expected 1 to 64 axes", { shape: [], strides: [], axis: 0 });
        const { saved } = bn.forwardTraining({ x: nhwc(x) });
        const other = { ...saved, layout: { ...saved.layout, strides: [1, 2] } };
        throws({ name: "RangeError", message: "saved.layout.strides.length is 2; expected 3" },
            () => bn.backward({ dy: x, x, saved: other }));
        let reads = 0;
        bn.moments({ x: { get data() { return reads++, x; }, shape: [4, 3, 6], strides: [18, 1, 3] } });
        check(reads === 1, `${reads} reads`);
    },

    "groups, weights and masks that are none": ({ bn }) => {
        const given = { x: batch(0), shape: [4, 3, 6] };
        const wrong = (name, message, more) => {
            throws({ name, message }, () => bn.forwardTraining({ ...given, ...more }));
        };
        wrong("TypeError", "groups is 2; expected { count, ... }", { groups: 2 });
        wrong("TypeError", "groups.count is undefined; expected a whole number, at least 1", { groups: {} });
        wrong("TypeError", "groups.samples is 0.5; expected a whole number, at least 1",
            { groups: { count: 2, samples: 0.5 } });
        const parts = "count, index, samples, perGroup, interleaved, averaged";
        wrong("TypeError", `groups.size is no part of groups; expected ${parts}`, { groups: { count: 2, size: 2 } });
        wrong("TypeError", "groups.index is Array; expected Int32Array", { groups: { count: 2, index: [0, 1, 0, 1] } });
        wrong("RangeError", "groups.index.length is 3; expected 4",
            { groups: { count: 2, index: new Int32Array(3), samples: 4 } });
        wrong("TypeError", "groups.perGroup[0] is \"means\"; expected statistics, running, parameters",
            { groups: { count: 2, perGroup: ["means"] } });
        wrong("TypeError", "groups.averaged is 1; expected a boolean", { groups: { count: 2, averaged: 1 } });
        wrong("RangeError", "gamma.length is 3; expected 6",
            { gamma: new Float32Array(3), groups: { count: 2, perGroup: ["statistics", "parameters"] } });
        wrong("RangeError", "weights.length is 4; expected 24", { weights: new Float32Array(4) });
        wrong("TypeError", "weights is Float64Array; expected Float32Array", { weights: new Float64Array(24) });
        wrong("TypeError", 'masked is "drop"; expected normalize, zero, keep', { masked: "drop" });
        wrong("TypeError", "saveMask is 1; expected a boolean", { saveMask: 1 });
        const { saved } = bn.forwardTraining({ ...given, activation: "relu", saveMask: true, groups: { count: 2 } });
        const dy = batch(1);
        const again = (message, more) => {
            throws({ name: "RangeError", message }, () => bn.backward({ dy, x: given.x, saved, ...more }));
        };
        again("groups.count is 4; expected 2, which is saved.groups.count", { groups: { count: 4 } });
        again("saved.mask.length is 8; expected 9", { saved: { ...saved, mask: saved.mask.slice(1) } });
        bn.backward({ dy, x: given.x, saved: structuredClone(saved), groups: { count: 2 } });
        const masked = bn.forwardTraining({ ...given, residual: dy, activation: "relu", saveMask: true }).saved;
        check(masked.residual === null && masked.hasResidual, "the residual is kept beside a mask");
        // The tensor has 24 positions in 4 samples: its strides tell it, or the number of samples does.
        const index = Int32Array.of(1, 0, 0, 1);
        const expected = bn.forwardTraining({ x: nhwc(given.x), groups: { count: 2, index } }).y.data;
        for (const groups of [{ count: 2, index }, { count: 2, index, samples: 4 }]) {
            checkSame(bn.forwardTraining({ ...given, shape: [24, 3, 1], groups }).y, expected, undefined, "y");
        }
    },
};
