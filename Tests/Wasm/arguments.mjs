// SPDX-License-Identifier: Apache-2.0
// The refusals of calls, their words, and the defaults of arguments.
import { batch, check, checkSame, shape, size, throws } from "./assertions.mjs";

export const argumentChecks = {
    "what the library refuses": ({ bn, BatchNormError }) => {
        const x = batch(0);
        const refused = (status, message, given) => {
            const kept = x.slice();
            const call = () => bn.forwardTraining({ x, shape, ...given });
            const error = throws({ name: "BatchNormError", status, message }, call);
            check(error instanceof BatchNormError && error instanceof Error, "another class");
            checkSame(x, kept, undefined, "x");
        };
        const one = Float32Array.of(1, 2, 3);
        refused(2, "forwardTraining: shape[1] is 0; expected at least 1, and fewer than memory holds",
            { x: new Float32Array(0), shape: [2, 0, 3] });
        refused(2, "forwardTraining: shape[2] is 2147483647; " +
            "expected channels * inner elements within 2147483647 bytes",
            { x: new Float32Array(0), shape: [0, 3, 2147483647] });
        refused(5, "forwardTraining: eps is -1; expected a finite number, at least 0", { eps: -1, y: x });
        refused(5, "forwardTraining: eps is -Infinity; expected a finite number, at least 0", { eps: -Infinity });
        refused(5, "forwardTraining: momentum is NaN; expected a number from 0 to 1", { momentum: NaN });
        refused(5, "forwardTraining: low is 6; expected a number below high", { activation: "clip", low: 6 });
        refused(20, "forwardTraining: values per channel (outer * inner) is 1; expected more than 1 in training: " +
            "one value has no variance (forwardInference takes one)", { x: one, shape: [1, 3, 1] });
        // Every message uses JavaScript's names.
        for (const given of [{ slope: -1, activation: "leakyRelu" }, { shape: [2147483647, 3, 2147483647] }]) {
            try {
                bn.forwardTraining({ x: new Float32Array(0), shape: [0, 3, 0], ...given });
            } catch (error) {
                check(!/bn_|NULL|->|_MAX|[a-z]_[a-z]/.test(error.message), error.message);
                continue;
            }
            check(false, `nothing is thrown for ${JSON.stringify(given)}`);
        }
    },

    "running statistics that are missing": ({ bn }) => {
        const [x, row] = [batch(0), Float32Array.of(1, 2, 3)];
        const missing = (name, expected, call) => {
            throws({ name: "TypeError", message: `${name} is undefined; expected ${expected}` }, call);
        };
        const pair = "both runningMean and runningVar, or neither";
        missing("runningVar", pair, () => bn.forwardTraining({ x, shape, runningMean: row }));
        missing("runningMean", pair, () => bn.forwardTraining({ x, shape, runningVar: row }));
        const array = "an array of 3 elements";
        missing("runningMean", array, () => bn.forwardInference({ x, shape }));
        missing("runningMean", array, () => bn.forwardInference({ x, shape, runningVar: row }));
        missing("runningVar", array, () => bn.forwardInference({ x, shape, runningMean: row }));
    },

    "anything but one object": ({ bn }) => {
        const x = batch(0);
        const wrong = (message, ...given) => {
            for (const name of ["forwardTraining", "forwardInference", "backward", "moments"]) {
                const takes = { backward: "dy, x, saved", moments: "x, shape, dtype" }[name] ?? "x, shape, dtype";
                const expected = `; expected one object, ${name}({ ${takes}, ... })`;
                throws({ name: "TypeError", message: message(name) + expected }, () => bn[name](...given));
            }
        };
        wrong((name) => `${name} is given 0 arguments`);
        wrong((name) => `${name} is given 2 arguments`, x, shape);
        wrong((name) => `${name} is given 2 arguments`, { x, shape }, {});
        const kinds = { Float32Array: x, Array: [x], undefined, null: null, Function: () => x };
        for (const [kind, given] of Object.entries(kinds)) wrong((name) => `the argument of ${name} is ${kind}`, given);
    },

    "arrays that do not go together": ({ bn }) => {
        const x = batch(0);
        const wrong = (name, message, given) => {
            throws({ name, message }, () => bn.forwardTraining({ x, shape, ...given }));
        };
        wrong("RangeError", "x.length is 71; expected 72", { x: x.subarray(1) });
        wrong("RangeError", "gamma.length is 2; expected 3", { gamma: new Float32Array(2) });
        wrong("RangeError", "y.length is 71; expected 72", { y: x.subarray(1) });
        wrong("TypeError", "y is Float64Array; expected Float32Array", { y: new Float64Array(size) });
        wrong("TypeError", "y is null; expected Float32Array", { y: null });
        wrong("TypeError", "residual is Float64Array; expected Float32Array", { residual: new Float64Array(size) });
        wrong("TypeError", "beta is Float32Array; expected Float64Array",
            { gamma: new Float64Array(3), beta: new Float32Array(3) });
        wrong("TypeError", "x is Float32Array; expected Uint16Array", { dtype: "bfloat16" });
        wrong("TypeError", 'x is Float32Array; expected Float16Array, or Uint16Array and dtype "float16"',
            { dtype: "float16" });
        const any = "Float32Array, Float64Array or Float16Array, or Uint16Array and a dtype";
        wrong("TypeError", `gamma is Uint16Array; expected ${any}`, { gamma: new Uint16Array(3) });
        const buffer = new ArrayBuffer(4 * size);
        for (const x of [new Uint16Array(size), new Int32Array(size), new DataView(buffer), buffer, [1], () => 1]) {
            const message = `x is ${Object.prototype.toString.call(x).slice(8, -1)}; expected ${any}`;
            throws({ name: "TypeError", message }, () => bn.moments({ x, shape }));
        }
        throws({ name: "TypeError", message: `x is null; expected ${any}` }, () => bn.moments({ x: null, shape }));
        const { saved } = bn.forwardTraining({ x, shape });
        const backward = (name, message, given) => {
            throws({ name, message }, () => bn.backward({ dy: x, x, saved, ...given }));
        };
        backward("TypeError", "dy is undefined; expected Float32Array", { dy: undefined });
        backward("TypeError", "dy is Float64Array; expected Float32Array", { dy: new Float64Array(size) });
        backward("TypeError", "x is undefined; expected Float32Array", { x: undefined });
        backward("RangeError", "x.length is 71; expected 72", { x: x.subarray(1) });
        backward("TypeError", "dx is Float64Array; expected Float32Array", { dx: new Float64Array(size) });
        backward("RangeError", "dx.length is 73; expected 72", { dx: new Float32Array(size + 1) });
    },

    "options that are none": ({ bn }) => {
        const x = batch(0);
        const wrong = (message, given) => {
            throws({ name: "TypeError", message }, () => bn.forwardTraining({ x, shape, ...given }));
        };
        wrong('eps is "1e-5"; expected a number', { eps: "1e-5" });
        wrong("eps is null; expected a number", { eps: null });
        wrong("momentum is Symbol(m); expected a number", { momentum: Symbol("m") });
        wrong("slope is Object; expected a number", { activation: "leakyRelu", slope: Object.create(null) });
        wrong("biasedRunningVar is 1; expected a boolean", { biasedRunningVar: 1 });
        const activations = "identity, relu, leakyRelu, clip, hardSwish, silu";
        wrong(`activation is "gelu"; expected ${activations}`, { activation: "gelu" });
        wrong(`activation is Array; expected ${activations}`, { activation: ["relu"] });
        wrong(`activation is Symbol(relu); expected ${activations}`, { activation: Symbol("relu") });
        const dtypes = [["bogus", '"bogus"'], ["float32", '"float32"'], [null, "null"], [["float16"], "Array"]];
        for (const [dtype, found] of dtypes) {
            wrong(`dtype is ${found}; expected "float16" or "bfloat16", or none`, { dtype, x: null });
        }
        wrong('shape is "436"; expected [outer, channels, inner]', { shape: "436" });
        wrong("shape.length is 2; expected 3", { shape: [4, 3] });
        const extents = [[NaN, "NaN"], [6.5, "6.5"], [-6, "-6"], [2 ** 31, "2147483648"], ["6", '"6"']];
        for (const [extent, found] of extents) {
            wrong(`shape[2] is ${found}; expected a whole number from 0 to 2147483647`, { shape: [4, 3, extent] });
        }
        wrong("shape[1] is undefined; expected a whole number from 0 to 2147483647", { shape: [4, , 6] });
        const message = "eps is no argument of moments; expected x, shape, dtype";
        throws({ name: "TypeError", message }, () => bn.moments({ x, shape, eps: 1 }));
    },

    "defaults are those of the header": ({ bn }) => {
        // This gamma takes values beyond every bound.
        const given = { x: batch(0), shape, gamma: Float32Array.of(8, 8, 8) };
        const forward = (options) => {
            const running = { runningMean: Float32Array.of(1, 2, 3), runningVar: Float32Array.of(3, 2, 1) };
            const { y, saved } = bn.forwardTraining({ ...given, ...running, ...options });
            const { dx, dgamma } = bn.backward({ dy: batch(1), x: given.x, saved });
            return { y, mean: saved.mean, invstd: saved.invstd, dx, dgamma, ...running };
        };
        for (const [sparse, full] of [
            [{}, { eps: 1e-5, momentum: 0.1, biasedRunningVar: false, activation: "identity" }],
            [{ activation: "leakyRelu" }, { activation: "leakyRelu", slope: 0.01 }],
            [{ activation: "clip" }, { activation: "clip", low: 0, high: 6 }],
        ]) {
            const [found, expected] = [forward(sparse), forward(full)];
            const { activation } = full;
            for (const name in expected) checkSame(found[name], expected[name], undefined, `${activation}: ${name}`);
        }
    },
};
