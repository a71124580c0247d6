// SPDX-License-Identifier: Apache-2.0
// What holds wherever the module runs: node.mjs and page.html call this with its exports and with what reads a file.

const size = 4 * 3 * 6;
const shape = [4, 3, 6];
const tensor = (value) => Float32Array.from({ length: size }, (_, i) => value(i));
const batch = (k) => tensor((i) => ((i * 37 + k * 11) % 101) / 8 - 5);

/** `read(name)` gives a file's bytes. Returns how many tests passed, and what failed. */
export async function run({ load, BatchNormError }, read) {
    const bytes = await read("batchnorm.wasm");
    const bn = await load(bytes);
    const text = async (name) => new TextDecoder().decode(await read(name));
    let passed = 0;
    const failures = [];
    const test = async (name, body) => {
        try {
            await body();
            passed++;
        } catch (error) {
            failures.push(`${name}: ${error.stack}`);
        }
    };

    await test("the values of the examples", async () => compare(train(bn), await text("values.txt")));
    for (const line of (await text("cases.jsonl")).trim().split("\n")) {
        const layer = JSON.parse(line);
        await test(`bits of ${layer.dtype ?? layer.arrays.x[0]} ${layer.shape}`, () => checkBits(bn, layer));
    }
    for (const [name, body] of Object.entries(checks)) {
        await test(name, () => body({ bn, bytes, load, BatchNormError }));
    }
    return { passed, failures };
}

function check(condition, message) {
    if (!condition) throw new Error(message);
}

function throws(expected, body) {
    let found;
    try {
        body();
    } catch (error) {
        found = error;
    }
    check(found, `nothing is thrown, expected ${JSON.stringify(expected)}`);
    for (const [name, value] of Object.entries(expected)) {
        check(found[name] === value, `${name} is ${found[name]}, expected ${value}`);
    }
    return found;
}

/** Three steps of training and one inference, as examples/values/make.py describes them. */
function train(bn) {
    const dy = tensor((i) => ((i * 53 + 7) % 17) / 4 - 2);
    const [gamma, beta] = [Float32Array.of(1, 2, 0.5), Float32Array.of(0, -1, 3)];
    const running = { runningMean: Float32Array.of(0, 0, 0), runningVar: Float32Array.of(1, 1, 1) };
    const descend = (parameters, gradients) => parameters.forEach((_, c) => (parameters[c] -= 0.01 * gradients[c]));
    let y, gradients;
    for (let k = 0; k < 3; k++) {
        const x = batch(k);
        const { y: output, ...saved } = bn.forwardTraining({ x, shape, gamma, beta, ...running });
        gradients = bn.backward({ dy, x, shape, gamma, ...saved });
        descend(gamma, gradients.dgamma);
        descend(beta, gradients.dbeta);
        y = output;
    }
    const inferred = bn.forwardInference({ x: batch(0), shape, gamma, beta, ...running }).y;
    const { runningMean: running_mean, runningVar: running_var } = running;
    return { y, ...gradients, gamma, beta, running_mean, running_var, inferred };
}

function compare(results, expected) {
    const lines = expected.trim().split("\n");
    for (const line of lines) {
        const [name, , ...words] = line.split(" ");
        check(results[name]?.length === words.length, `${name}: another number of values`);
        words.forEach((word, i) => {
            const [value, wanted] = [results[name][i], Number(word)];
            const isNear = Math.abs(value - wanted) <= 1e-4 * Math.max(1, Math.abs(wanted)); // false for NaN, too
            check(isNear, `${name}[${i}] is ${value}, expected ${word}`);
        });
    }
    check(lines.length === Object.keys(results).length, "results are missing");
}

const INTEGERS = { 2: Uint16Array, 4: Uint32Array, 8: BigUint64Array };

function unpack([type, base64]) {
    return new globalThis[type](Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)).buffer);
}

/** The calls on a layer, in order: what a forward call saved goes to the backward call that follows it. */
function checkBits(bn, layer) {
    const arrays = Object.fromEntries(Object.entries(layer.arrays).map(([name, array]) => [name, unpack(array)]));
    let saved;
    for (const { function: name, options, takes, results } of layer.calls) {
        const given = Object.fromEntries(takes.map((name) => [name, arrays[name].slice()]));
        const own = { shape: layer.shape, ...(layer.dtype && { dtype: layer.dtype }) };
        const found = bn[name]({ ...own, ...options, ...given, ...(name === "backward" && saved) });
        if (name !== "backward") saved = { mean: found.mean, invstd: found.invstd };
        for (const [result, packed] of Object.entries(results)) {
            const expected = unpack(packed);
            const what = `${name} ${JSON.stringify(options)}: ${result}`;
            checkSame(found[result] ?? given[result], expected, layer.dtype, what);
        }
    }
}

/** To the bit, but for what a NaN holds. */
function checkSame(found, expected, dtype, what) {
    check(found?.constructor === expected.constructor && found.length === expected.length, `${what}: another array`);
    const infinity = { float16: 0x7c00, bfloat16: 0x7f80 }[dtype];
    const isBits = expected instanceof Uint16Array;
    const isNaN = isBits ? (bits) => (bits & 0x7fff) > infinity : Number.isNaN;
    const Integers = INTEGERS[expected.BYTES_PER_ELEMENT];
    const [a, b] = [found, expected].map((array) => new Integers(array.buffer, array.byteOffset, array.length));
    const place = a.findIndex((bits, i) => bits !== b[i] && !(isNaN(found[i]) && isNaN(expected[i])));
    check(place < 0, `${what}[${place}] is ${found[place]}, expected ${expected[place]}`);
}

/** The C ABI itself. */
async function instantiate(bytes) {
    const { exports } = await WebAssembly.instantiate(await WebAssembly.compile(bytes));
    exports._initialize();
    const text = (start) => {
        const characters = new Uint8Array(exports.memory.buffer, start);
        return new TextDecoder().decode(characters.subarray(0, characters.indexOf(0)));
    };
    return { exports, text };
}

const checks = {
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
        refused(2, "bn_forward_training: channels is 0; expected at least 1, and fewer than memory holds",
            { x: new Float32Array(0), shape: [2, 0, 3] });
        refused(2, "bn_forward_training: shape->inner is 2147483647; " +
            "expected channels * inner elements within PTRDIFF_MAX bytes",
            { x: new Float32Array(0), shape: [0, 3, 2147483647] });
        refused(5, "bn_forward_training: eps is -1; expected a finite number, at least 0", { eps: -1, y: x });
        refused(5, "bn_forward_training: momentum is nan; expected a number from 0 to 1", { momentum: NaN });
        refused(5, "bn_forward_training: epilogue->low is 6; expected a number below high",
            { activation: "clip", low: 6 });
        refused(6, "bn_forward_training: running_var is NULL; expected both of a pair, or neither",
            { runningMean: one });
        refused(20, "bn_forward_training: values per channel (outer * inner) is 1; " +
            "expected more than 1 in training: one value has no variance", { x: one, shape: [1, 3, 1] });
        throws({ name: "BatchNormError", status: 1 }, () => bn.forwardInference({ x, shape }));
    },

    "arrays that do not go together": ({ bn }) => {
        const x = batch(0);
        const wrong = (name, message, given) => {
            throws({ name, message }, () => bn.forwardTraining({ x, shape, ...given }));
        };
        wrong("RangeError", "x has 71 elements, expected 72", { x: x.subarray(1) });
        wrong("RangeError", "gamma has 2 elements, expected 3", { gamma: new Float32Array(2) });
        wrong("RangeError", "y has 71 elements, expected 72", { y: x.subarray(1) });
        wrong("TypeError", "y is of float64, expected float32", { y: new Float64Array(size) });
        wrong("TypeError", "residual is of float64, expected float32", { residual: new Float64Array(size) });
        wrong("TypeError", "beta is of float32, expected float64",
            { gamma: new Float64Array(3), beta: new Float32Array(3) });
        wrong("TypeError", "x is of float32, expected bfloat16", { dtype: "bfloat16" });
        wrong("TypeError", "eps: expected a number", { eps: "1e-5" });
        wrong("TypeError", "biasedRunningVar: expected true or false", { biasedRunningVar: 1 });
        for (const shape of [[4, 3], [4, 3, 6.5], [4, 3, -6], [4, 3, 2 ** 31], "436"]) {
            const message = "shape: expected [outer, channels, inner], whole numbers from 0 to 2147483647";
            wrong("TypeError", message, { shape });
        }
        const buffer = new ArrayBuffer(4 * size);
        for (const x of [new Uint16Array(size), new Int32Array(size), new DataView(buffer), buffer, [1], null]) {
            const { message } = throws({ name: "TypeError" }, () => bn.moments({ x, shape }));
            check(message.startsWith("x: expected a Float32Array"), message);
        }
        for (const mean of [undefined, [1, 2, 3], new Float32Array(3)]) {
            const message = "mean: expected the Float64Array that the forward call gave";
            throws({ name: "TypeError", message }, () => bn.backward({ dy: x, x, shape, mean }));
        }
        throws({ message: "eps is no argument; there are x, shape, dtype" }, () => bn.moments({ x, shape, eps: 1 }));
        throws({ name: "TypeError", message: "expected an object of arguments" }, () => bn.moments());
    },

    "arrays of a caller's own": ({ bn }) => {
        const x = batch(0);
        const { y: expected, ...saved } = bn.forwardTraining({ x, shape });
        const y = new Float32Array(size);
        check(bn.forwardTraining({ x, shape, y }).y === y, "y is another array");
        checkSame(y, expected, undefined, "y");
        const dy = batch(1);
        const { dx } = bn.backward({ dy, x, shape, ...saved });
        bn.backward({ dy, x, shape, ...saved, dx: dy });
        checkSame(dy, dx, undefined, "dx in place");
        bn.forwardTraining({ x, shape, y: x });
        checkSame(x, expected, undefined, "y in place");
    },

    "parameters of another type than the tensors": ({ bn }) => {
        const x = batch(0);
        const gamma = Float64Array.of(0.1, 0.2, 0.3);
        const [runningMean, runningVar] = [new Float64Array(3), new Float64Array(3)];
        const { y, ...saved } = bn.forwardTraining({ x, shape, gamma, runningMean, runningVar, momentum: 1 });
        checkSame(runningMean, saved.mean, undefined, "runningMean");
        check(bn.backward({ dy: y, x, shape, gamma, ...saved }).dgamma instanceof Float64Array, "dgamma");
        check(bn.backward({ dy: y, x, shape, ...saved }).dgamma instanceof Float32Array, "dgamma without gamma");
    },

    "memory is free again after every call": ({ bn }) => {
        // A megabyte each: together they would be more than there is.
        const [x, shape] = [new Float32Array(1 << 18), [1 << 9, 1, 1 << 9]];
        for (let i = 0; i < 2100; i++) throws({ status: 5 }, () => bn.forwardTraining({ x, shape, eps: -1 }));
        for (let i = 0; i < 2100; i++) bn.moments({ x, shape });
    },

    "no memory is an error": async ({ bn, bytes }) => {
        // For arrays: more than a size can tell, and than there is.
        const x = new Float32Array(0);
        for (const channels of [2 ** 31 - 1, 89_478_000]) {
            throws({ name: "BatchNormError", status: 41 }, () => bn.moments({ x, shape: [0, channels, 1] }));
        }
        // For the library's work.
        const { exports, text } = await instantiate(bytes);
        exports.bn_get_num_threads();
        for (let size = 2 ** 30; size >= 64; size /= 2) while (exports.aligned_alloc(64, size) !== 0);
        const at = exports.module_shape(0, 1000, 1);
        check(exports.bn_moments(at, 1, 64, 64, 65536, 131072) === 41, "bn_moments");
        const message = text(exports.bn_last_error());
        check(/^bn_moments: working memory is \d+; expected that many bytes to be free$/.test(message), message);
    },

    "every way to load": async ({ bytes, load, BatchNormError }) => {
        const module = await WebAssembly.compile(bytes);
        check(WebAssembly.Module.imports(module).length === 0, "it imports something");
        const typed = new Response(bytes, { headers: { "Content-Type": "application/wasm" } });
        const sources = [undefined, bytes, new Uint8Array(bytes), module, typed, new Response(bytes)];
        for (const source of [...sources, Promise.resolve(bytes)]) {
            const bn = await load(source);
            check(Math.floor(bn.version / 10000) === 1, "version");
        }
        const missing = await load(new Response("", { status: 404 })).catch((error) => error);
        check(/404/.test(missing.message), `${missing.message}`);
    },

    "structures and sizes of 32 bits": async ({ bytes }) => {
        const { exports, text } = await instantiate(bytes);
        const [values, shape] = [exports.aligned_alloc(64, 64), exports.module_shape(1, 2, 2)];
        const write = (at, value) => (new Uint32Array(exports.memory.buffer)[at / 4] = value);
        const moments = () => exports.bn_moments(shape, 1, values, values + 16, values + 32, values + 48);
        for (const size of [32, 28]) {
            write(shape, size); // of this version, and of 1.0
            check(moments() === 0, `struct_size ${size}`);
        }
        write(shape, 56); // what it was in 1.0, in 64 bits
        check(moments() === 4, "struct_size 56");
        const message = "bn_moments: shape->struct_size is 56; expected sizeof(bn_shape), which is 32";
        check(text(exports.bn_last_error()) === message, text(exports.bn_last_error()));
        // A size is aligned to four bytes.
        write(values + 4, 2);
        check(exports.bn_length_weights(1, 3, values + 4, 1, values + 8) === 0, "bn_length_weights");
        const weights = new Float32Array(exports.memory.buffer, values + 8, 3);
        check(weights.join() === "1,1,0", `weights ${weights}`);
    },

    "one thread, one instruction set": async ({ bytes }) => {
        const { exports, text } = await instantiate(bytes);
        check(text(exports.bn_isa_name()) === "baseline", "bn_isa_name");
        check(exports.bn_get_num_threads() === 1, "bn_get_num_threads");
        // The header: more may be asked for than are at work.
        check(exports.bn_set_num_threads(8) === 0 && exports.bn_get_num_threads() === 8, "8 threads");
        check(exports.bn_set_num_threads(0) === 0 && exports.bn_get_num_threads() === 1, "the default");
        check(exports.bn_set_num_threads(1025) === 5 && exports.bn_set_num_threads(-1) === 5, "statuses");
        const message = "bn_set_num_threads: threads is -1; expected 1 to 1024, or 0 for the default";
        check(text(exports.bn_last_error()) === message, text(exports.bn_last_error()));
    },
};

// A language that has them.
if ("Float16Array" in globalThis) {
    checks["float16 as numbers"] = ({ bn }) => {
        const { Float16Array } = globalThis;
        const x = new Float16Array(batch(0));
        const bits = new Uint16Array(x.buffer);
        const { y } = bn.forwardTraining({ x: bits, shape, dtype: "float16" });
        const found = bn.forwardTraining({ x, shape }).y;
        check(found instanceof Float16Array, "another type");
        checkSame(new Uint16Array(found.buffer), y, "float16", "y");
        const target = new Uint16Array(size);
        bn.forwardTraining({ x, shape, dtype: "float16", y: target });
        checkSame(target, y, "float16", "y of another type");
    };
}
