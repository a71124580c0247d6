// SPDX-License-Identifier: Apache-2.0
// Which arrays may be given and are written to, and of which type results are.
import { batch, check, checkSame, shape, size, throws } from "./assertions.mjs";

export const arrayChecks = {
    "arrays of a caller's own": ({ bn }) => {
        const x = batch(0);
        const { y: expected, saved } = bn.forwardTraining({ x, shape });
        const y = new Float32Array(size);
        check(bn.forwardTraining({ x, shape, y }).y === y, "y is another array");
        checkSame(y, expected, undefined, "y");
        const dy = batch(1);
        const { dx } = bn.backward({ dy, x, saved });
        bn.backward({ dy, x, saved, dx: dy });
        checkSame(dy, dx, undefined, "dx in place");
        bn.forwardTraining({ x, shape, y: x });
        checkSame(x, expected, undefined, "y in place");
        // The array that was checked is the one that is used.
        let reads = 0;
        bn.moments({ shape, get x() { return reads++, x; } });
        check(reads === 1, `${reads} reads`);
    },

    "memory that overlaps": ({ bn }) => {
        // x, then room for it to be shifted; gamma and the running statistics between other elements.
        const [long, short] = [new Float32Array(size + 8), new Float32Array(12)];
        const x = long.subarray(4, size + 4);
        x.set(batch(0));
        const [gamma, runningMean, runningVar] = [0, 3, 6].map((at) => short.subarray(at, at + 3).fill(1));
        const given = { x, shape, gamma, runningMean, runningVar };
        const overlaps = (name, other, twin, given, call = bn.forwardTraining.bind(bn)) => {
            const kept = [long.slice(), short.slice()];
            const message = `${name} overlaps ${other}; expected memory of its own${twin}`;
            throws({ name: "RangeError", message }, () => call(given));
            [long, short].forEach((array, i) => checkSame(array, kept[i], undefined, `after "${message}"`));
        };
        const orX = ", or that of x";
        for (const at of [0, 3, 5, 8]) overlaps("y", "x", orX, { ...given, y: long.subarray(at, at + size) });
        const y = batch(1);
        overlaps("y", "residual", orX, { ...given, residual: y, y });
        overlaps("y", "residual", orX, { ...given, residual: x, y: x });
        overlaps("runningMean", "runningVar", "", { ...given, runningVar: runningMean });
        overlaps("runningMean", "runningVar", "", { ...given, runningVar: short.subarray(5, 8) });
        overlaps("runningMean", "gamma", "", { ...given, gamma: short.subarray(1, 4) });
        overlaps("runningVar", "x", "", { ...given, runningVar: long.subarray(4, 7) });
        // An extent of 1 makes tensors as short as parameters.
        const small = { ...given, x: Float32Array.of(1, 2, 3), shape: [1, 3, 1] };
        for (const name of ["gamma", "runningMean", "runningVar"]) {
            overlaps("y", name, orX, { ...small, y: small[name] });
            overlaps("y", name, orX, { ...small, y: small[name] }, bn.forwardInference.bind(bn));
        }
        const { saved } = bn.forwardTraining({ x, shape });
        const gradients = { dy: batch(1), x, saved };
        const backward = bn.backward.bind(bn);
        overlaps("dx", "x", ", or that of dy", { ...gradients, dx: x }, backward);
        overlaps("dx", "x", ", or that of dy", { ...gradients, dy: x, dx: x }, backward);
        const row = Float64Array.of(1, 2, 3);
        const one = bn.forwardInference({ x: row, shape: [1, 3, 1], runningMean: row, runningVar: row }).saved;
        const doubles = { dy: row.slice(), x: row, saved: one };
        overlaps("dx", "saved.mean", ", or that of dy", { ...doubles, dx: one.mean }, backward);
        // Arrays that are only read may be one array, and neighbours do not overlap.
        bn.forwardInference({ ...given, runningVar: runningMean, gamma: runningMean });
        bn.forwardTraining({ ...given, residual: x });
        bn.forwardTraining({ ...given, y: x });
        // Empty arrays do not overlap.
        bn.forwardTraining({ x: x.subarray(0, 0), shape: [0, 3, 6], y: long.subarray(4, 4) });
    },

    "nothing is written before all else is done": ({ bn }) => {
        const [x, y] = [batch(0), batch(1)];
        const running = { runningMean: Float32Array.of(1, 2, 3), runningVar: Float32Array.of(1, 2, 3) };
        const given = { x, shape, y, ...running };
        const { slice } = Float64Array.prototype;
        // Stands for a new array that there is no memory for.
        Object.assign(Float64Array.prototype, { slice() { throw new RangeError("no memory"); } });
        try {
            throws({ message: "no memory" }, () => bn.forwardTraining(given));
        } finally {
            delete Float64Array.prototype.slice;
        }
        check(Float64Array.prototype.slice === slice, "slice is another one");
        checkSame(y, batch(1), undefined, "y");
        for (const array of Object.values(running)) check(array.join() === "1,2,3", `${array}`);
        // A target's own functions are never called.
        y.set = () => { throw new Error("set"); };
        const { invstd } = bn.forwardTraining(given).saved;
        checkSame(y, bn.forwardTraining({ x, shape }).y, undefined, "y");
        check(invstd.length === 3 && running.runningMean[0] !== 1, "nothing is written");
    },

    "arrays that are longer or shorter than they say": ({ bn }) => {
        const [x, y] = [batch(0), batch(1)];
        const lies = (array, name, value) => Object.defineProperty(array.slice(), name, { value });
        const running = () => ({ runningMean: Float32Array.of(1, 2, 3), runningVar: Float32Array.of(1, 2, 3) });
        const given = running();
        const refused = (message, call) => {
            throws({ name: "RangeError", message }, () => bn.forwardTraining({ x, shape, ...call }));
            // The outputs that are written earlier stay as they were, too.
            for (const array of [given.runningMean, given.runningVar]) check(array.join() === "1,2,3", `${array}`);
            checkSame(y, batch(1), undefined, "y");
        };
        const message = "runningVar.byteLength is 8; expected 12";
        refused(message, { y, ...given, runningVar: lies(given.runningVar, "byteLength", 8) });
        refused("x.byteLength is 0; expected 288", { y, ...given, x: lies(x, "byteLength", 0) });
        refused("y.byteLength is 284; expected 288", { ...given, y: lies(y.subarray(1), "length", 72) });
    },

    "arrays whose memory has gone elsewhere": ({ bn }) => {
        const detached = (length) => {
            const array = new Float32Array(length);
            structuredClone(array.buffer, { transfer: [array.buffer] });
            return array;
        };
        const message = "y.length is 0; expected 72";
        throws({ name: "RangeError", message }, () => bn.forwardTraining({ x: batch(0), shape, y: detached(size) }));
        // A detached array will do where nothing is read or written; the library judges the rest.
        const empty = { x: new Float32Array(0), shape: [0, 3, 6] };
        const [x, y] = [detached(1), detached(1)];
        const { mean } = bn.forwardTraining(empty).saved;
        checkSame(bn.forwardTraining({ ...empty, y }).saved.mean, mean, undefined, "mean");
        checkSame(bn.forwardTraining({ ...empty, x }).saved.mean, mean, undefined, "mean");
    },

    "parameters of another type than the tensors": ({ bn }) => {
        const x = batch(0);
        const gamma = Float64Array.of(0.1, 0.2, 0.3);
        const [runningMean, runningVar] = [new Float64Array(3), new Float64Array(3)];
        const { y, saved } = bn.forwardTraining({ x, shape, gamma, runningMean, runningVar, momentum: 1 });
        checkSame(runningMean, saved.mean, undefined, "runningMean");
        const gradients = (x, options) => {
            const dy = x.slice();
            return bn.backward({ dy, x, saved: bn.forwardTraining({ x, shape, ...options }).saved });
        };
        check(bn.backward({ dy: y, x, saved }).dgamma instanceof Float64Array, "dgamma");
        check(gradients(x, { beta: gamma }).dgamma instanceof Float64Array, "dgamma beside beta");
        check(gradients(x).dgamma instanceof Float32Array, "dgamma without gamma");
        const ones = Float64Array.of(1, 1, 1);
        const [found, expected] = [gradients(Float64Array.from(x)), gradients(Float64Array.from(x), { gamma: ones })];
        for (const name of ["dgamma", "dbeta"]) checkSame(found[name], expected[name], undefined, `${name} of doubles`);
        const bits = gradients(new Uint16Array(size), { dtype: "bfloat16" });
        check(bits.dgamma instanceof Float32Array, "dgamma of bits");
    },

    "float16 as numbers": ({ bn }) => {
        // A language without them has bits by another name, which for this module are the same.
        const isKnown = "Float16Array" in globalThis;
        globalThis.Float16Array ??= class Float16Array extends Uint16Array {
            get [Symbol.toStringTag]() {
                return "Float16Array";
            }
        };
        try {
            const { Float16Array } = globalThis;
            const bits = Uint16Array.from({ length: size }, (_, i) => 0x3c00 + ((i * 37) % 101)); // from 1 to 1.1
            const x = new Float16Array(bits.buffer);
            const halves = (count) => new Float16Array(new ArrayBuffer(2 * count));
            const { y } = bn.forwardTraining({ x: bits, shape, dtype: "float16" });
            const found = bn.forwardTraining({ x, shape }).y;
            check(found instanceof Float16Array, "another type");
            checkSame(new Uint16Array(found.buffer), y, "float16", "y");
            const targets = [[x, new Uint16Array(size)], [bits, halves(size)]];
            for (const [x, y] of targets) bn.forwardTraining({ x, shape, dtype: "float16", y });
            for (const [, { buffer }] of targets) checkSame(new Uint16Array(buffer), y, "float16", "y of another type");
            const [gamma, beta] = [halves(3), new Uint16Array(3)];
            const { saved } = bn.forwardTraining({ x, shape, dtype: "float16", gamma, beta });
            check(bn.backward({ dy: x, x, saved }).dgamma instanceof Float16Array, "dgamma is not of gamma's type");
            const message = 'residual is Uint16Array; expected Float16Array, or Uint16Array and dtype "float16"';
            throws({ name: "TypeError", message }, () => bn.forwardTraining({ x, shape, residual: bits }));
        } finally {
            if (!isKnown) delete globalThis.Float16Array;
        }
    },
};
