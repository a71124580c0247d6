// SPDX-License-Identifier: Apache-2.0
// One thing, or two, that are wrong with a call. Not all are errors; none may do harm.

const SIZES = [0, -0, -1, 1.5, NaN, Infinity, -Infinity, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 53, 2 ** 53 + 2, -(2 ** 53), 1e308];
const NAMES = ["x", "dy", "gamma", "beta", "runningMean", "runningVar", "y", "dx", "residual", "saved", "shape", "dtype"];
const OPTIONS = ["eps", "momentum", "slope", "low", "high", "activation", "biasedRunningVar", "frozen"];
const WORDS = ["", "relu", "constructor", "__proto__", "float16", "bfloat16", "float32", "RELU", "identity"];

class Own extends Float32Array {}

/** Values of kinds that no argument has. */
function strange(draws, call) {
    const array = call.given[arraysOf(call)[0]];
    return draws.of([
        () => null,
        () => undefined,
        () => draws.of(SIZES),
        () => draws.of(WORDS),
        () => draws.is(0.5),
        () => 3n,
        () => Symbol("x"),
        () => () => array,
        () => [],
        () => Array.from(array),
        () => ({}),
        () => ({ length: array.length, [Symbol.toStringTag]: "Float32Array", buffer: array.buffer }),
        () => array.buffer,
        () => new DataView(array.buffer),
        () => new Int8Array(array.length),
        () => new Uint8ClampedArray(array.length),
        () => new BigInt64Array(array.length),
        () => new Uint16Array(array.length),
        () => new Float64Array(array.length),
        () => new Own(array.length),
        () => new Proxy(array, {}),
        () => Object.create(array),
        () => Object.freeze([1, 2, 3]),
        () => new Map(),
        () => new WebAssembly.Memory({ initial: 1 }),
    ])();
}

/** An array that says of itself what it is not. */
function liar(draws, array) {
    const copy = array.slice();
    const name = draws.of(["length", "byteLength", "byteOffset", "buffer", "constructor", Symbol.toStringTag, "slice", "set"]);
    const value = draws.of([0, array.length + 1, array.byteLength * 2, -1, 2 ** 40, NaN, "x", null, new ArrayBuffer(8), "Float64Array"]);
    Object.defineProperty(copy, name, { value });
    return copy;
}

/** Neither shared, nor the module's: those cannot be taken away. */
const isOwn = (call, buffer) => buffer instanceof ArrayBuffer && buffer !== call.exports.memory.buffer;

function detach(array) {
    structuredClone(array.buffer, { transfer: [array.buffer] });
}

/** Typed arrays that are what they say: something else may have been done to the others before. */
const arraysOf = (call) =>
    Object.keys(call.given).filter((name) => ArrayBuffer.isView(call.given[name]) && !call.strange?.has(name));

/** Takes the place of an argument. */
function replace(call, name, value) {
    call.given[name] = value;
    call.strange = (call.strange ?? new Set()).add(name);
}

const WRONGS = {
    "a strange value": (draws, call) => {
        replace(call, draws.of([...NAMES, ...OPTIONS]), strange(draws, call));
    },
    "a strange value in its place": (draws, call) => {
        replace(call, draws.of(Object.keys(call.given)), strange(draws, call));
    },
    "a number that is too small or too large": (draws, call) => {
        call.given[draws.of(OPTIONS)] = draws.of([...SIZES, 1e-320, 1e39, -1e-45]);
    },
    "a size": (draws, call) => {
        const shape = [...call.shape];
        shape[draws.below(3)] = draws.of([...SIZES, "3", null, undefined, 3n, [3], { valueOf: () => 3 }]);
        call.given.shape = shape;
    },
    "a shape of another length or kind": (draws, call) => {
        const [a, b, c] = call.shape;
        call.given.shape = draws.of([[], [a], [a, b], [a, b, c, 1], new Array(3), Int32Array.of(a, b, c), `${call.shape}`,
            new Proxy([a, b, c], {}), { 0: a, 1: b, 2: c, length: 3 }, [c, b, a], [a, c, b]]);
    },
    "a shape that changes as it is read": (draws, call) => {
        let reads = 0;
        const growing = { get: (of, name) => (name === "1" && reads++ > 0 ? 2 ** 20 : Reflect.get(of, name)) };
        call.given.shape = new Proxy([...call.shape], growing);
    },
    "an array of another length": (draws, call) => {
        const name = draws.of(arraysOf(call));
        const array = call.given[name];
        call.given[name] = draws.of([array.subarray(1), array.subarray(0, -1), new array.constructor(0),
            new array.constructor(array.length + 1)]);
    },
    "a detached buffer": (draws, call) => {
        const array = call.given[draws.of(arraysOf(call))];
        call.isSpoilt = isOwn(call, array.buffer);
        if (call.isSpoilt) detach(array);
    },
    "a buffer that is detached when an argument is read": (draws, call) => {
        const array = call.given[draws.of(arraysOf(call))];
        if (!isOwn(call, array.buffer)) return;
        const name = draws.of([...arraysOf(call), "eps"]);
        const value = call.given[name];
        Object.defineProperty(call.given, name, { enumerable: true, get: () => (array.byteLength && detach(array), value) });
    },
    "a buffer that shrank": (draws, call) => {
        const { buffer } = call.given[draws.of(arraysOf(call))];
        if (buffer.resizable) buffer.resize(draws.below(buffer.byteLength));
    },
    "a getter that throws": (draws, call) => {
        call.own = new Error("of the caller");
        const get = () => {
            throw call.own;
        };
        Object.defineProperty(call.given, draws.of([...NAMES, ...OPTIONS]), { enumerable: true, configurable: true, get });
    },
    "an array that lies": (draws, call) => {
        const name = draws.of(arraysOf(call));
        replace(call, name, liar(draws, call.given[name]));
        call.lies = true;
    },
    "arrays that overlap": (draws, call) => {
        const { Type } = call;
        call.isSpoilt = call.size > 1 && call.name !== "moments";
        const both = new Type(call.size + 1);
        call.given.x = both.subarray(1);
        if (call.name !== "moments") call.given[call.name === "backward" ? "dx" : "y"] = both.subarray(0, -1);
        call.buffers.push(both.buffer);
    },
    "an array in the module's memory": (draws, call) => {
        const name = draws.of(arraysOf(call));
        const array = call.given[name];
        const at = call.exports.aligned_alloc(64, Math.ceil(array.byteLength / 64) * 64 || 64);
        const inside = new array.constructor(call.exports.memory.buffer, at, array.length);
        inside.set(array);
        call.given[name] = inside;
        call.release = () => call.exports.free(at);
    },
    "a name that is none": (draws, call) => {
        call.given[draws.of(["", "X", "runningmean", "toString", "dz", "0"])] = 1;
    },
    "something in saved": (draws, call) => {
        if (!call.given.saved) return;
        const saved = { ...call.given.saved };
        const name = draws.of(Object.keys(saved));
        if (draws.is(0.2)) delete saved[name];
        else saved[name] = draws.is(0.7) ? strange(draws, call) : draws.of([...SIZES, [1, 2, 3], new Float64Array(99), "silu"]);
        call.given.saved = saved;
    },
    "arguments that are no object": (draws, call) => {
        call.arguments = draws.of([[], [call.given, call.given], [call.given.x], [null], [[call.given]], [() => call.given]]);
    },
};

/** The faults that no call accepts; an array of one element overlaps none. */
const NEVER = ["an array of another length", "a detached buffer", "a getter that throws", "a name that is none",
    "arguments that are no object", "arrays that overlap"];

/** Makes something wrong and returns it; `mustThrow` is true if the call has to notice. */
export function spoil(draws, call) {
    const names = Object.keys(WRONGS);
    const chosen = [draws.of(names), ...(draws.is(0.2) ? [draws.of(names)] : [])];
    // One at most takes memory away, or does something when an argument is read, and it comes last.
    const isLast = (name) => /detached|shrank| read|getter/.test(name);
    chosen.sort((a, b) => isLast(a) - isLast(b));
    if (isLast(chosen[0])) chosen.length = 1;
    for (const name of chosen) if (arraysOf(call).length > 0) WRONGS[name](draws, call);
    call.mustThrow = chosen.length === 1 && NEVER.includes(chosen[0]) && call.isSpoilt !== false;
    return chosen.join("; ");
}
