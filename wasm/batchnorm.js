// SPDX-License-Identifier: Apache-2.0
/**
 * Batch normalization in WebAssembly, for browsers and Node: typed arrays in and out, errors as exceptions.
 *
 *     import { load } from "./batchnorm.mjs";
 *     const bn = await load();
 *     const { y, saved } = bn.forwardTraining({ x, shape: [outer, channels, inner], gamma, beta });
 *     const { dx, dgamma, dbeta } = bn.backward({ dy, x, saved });
 *
 * batchnorm.d.mts says what each function takes, batchnorm.h what it computes: the bits are the native library's. The
 * arrays of a call are copied into the module's memory and back, and that memory is free again when the call is over.
 *
 * scripts/wasm makes two files of this one: the ES module, and a script for where there are no modules, such as a worker
 * of a page that was opened from disk. The script has the same two names in a global object, `batchnorm`:
 *
 *     const bn = await batchnorm.load(bytes);
 */

/** A refusal of the library, in its own sentence; `status` is its bn_status. */
class BatchNormError extends Error {
    constructor(message, status) {
        super(message);
        this.name = "BatchNormError";
        this.status = status;
    }
}

/** Instantiates batchnorm.wasm, that of a URL, a Response or its bytes; or a module. */
async function instantiate(source) {
    const { exports } = await WebAssembly.instantiate(await compile(await source));
    exports._initialize();
    return new BatchNorm(exports);
}

async function compile(source) {
    if (source instanceof WebAssembly.Module) return source;
    if (typeof source === "string" || source instanceof URL) source = await fetched(source);
    if (typeof Response === "undefined" || !(source instanceof Response)) return WebAssembly.compile(source);
    if (!source.ok) throw new Error(`${source.url}: ${source.status} ${source.statusText}`);
    // A server that does not know what the file is does no harm.
    const isTyped = source.headers.get("Content-Type") === "application/wasm";
    return isTyped ? WebAssembly.compileStreaming(source) : WebAssembly.compile(await source.arrayBuffer());
}

/** Node's fetch opens no files. */
async function fetched(url) {
    if (!globalThis.process?.versions?.node || /^(https?|data|blob):/i.test(url)) return fetch(url);
    const { readFile } = await import(/* webpackIgnore: true */ /* @vite-ignore */ "node:fs/promises");
    return readFile(String(url).startsWith("file:") ? new URL(url) : url);
}

const EPILOGUE = ["activation", "slope", "low", "high", "residual"];
const FORWARD = ["x", "shape", "dtype", "gamma", "beta", "runningMean", "runningVar", "y", "eps", ...EPILOGUE];
const TRAINING = [...FORWARD, "momentum", "biasedRunningVar"];
// A forward call saves what it was told and what it found, for backward. Arguments that are given again have to agree.
const SETTINGS = ["shape", "dtype", "eps", "frozen", "activation", "slope", "low", "high"];
const SAVED = [...SETTINGS, "mean", "invstd", "gamma", "beta"];
const BACKWARD = ["dy", "x", "saved", "residual", "dx", ...SAVED];

class BatchNorm {
    #exports;

    constructor(exports) {
        this.#exports = exports;
    }

    get version() {
        return this.#exports.bn_version();
    }

    forwardTraining(...given) {
        const call = new Call(this.#exports, "forwardTraining", only("forwardTraining", given, TRAINING));
        return this.#forward(this.#exports.bn_forward_training, call, true);
    }

    forwardInference(...given) {
        const call = new Call(this.#exports, "forwardInference", only("forwardInference", given, FORWARD));
        return this.#forward(this.#exports.bn_forward_inference, call, false);
    }

    #forward(compute, call, isTraining) {
        const [x, z] = [call.tensor("x"), call.tensor("residual", { optional: true })];
        const [gamma, beta, ...running] = call.parameters("gamma", "beta", "runningMean", "runningVar");
        call.checkRunning({ optional: isTraining });
        const [mean, invstd] = [call.room(Float64Array), call.room(Float64Array)];
        call.target("y", x);
        if (isTraining) running.forEach((array) => array !== NONE && call.target(array.name, array));
        const { y, ...saved } = call.run(
            // In the module's memory, y takes the place of x.
            (shape, dtype) =>
                compute(
                    shape, dtype, x.at, gamma.at, beta.at, running[0].at, running[1].at, x.at, mean.at, invstd.at,
                    call.options(z, NONE)),
            // Copies: what gamma and beta are now, not what they will be when backward is called.
            { y: x, mean, invstd, gamma, beta });
        return { y, saved: Object.freeze({ ...call.settings(!isTraining), ...saved }) };
    }

    backward(...given) {
        const { saved: found, ...again } = only("backward", given, BACKWARD);
        const saved = savedOf(found);
        checkAgain(again, saved);
        const { dy, x, dx, residual = saved.residual ?? undefined } = again;
        checkKept(x, saved);
        if (saved.residual === null && residual !== undefined) {
            throw unlike(RangeError, "residual", residual, "none, as the forward call had none");
        }
        const call = new Call(this.#exports, "backward", { ...argumentsOf(saved), dy, x, dx, residual }, saved.dtype);
        const [dyOf, xOf, z] = [call.tensor("dy"), call.tensor("x"), call.tensor("residual", { optional: true })];
        const [gamma, beta] = call.parameters("saved.gamma", "saved.beta");
        const [mean, invstd] = [call.statistic("saved.mean"), call.statistic("saved.invstd")];
        const [dgamma, dbeta] = [call.parameterRoom(), call.parameterRoom()];
        const dz = z === NONE ? NONE : call.room(z.Type, z.length);
        call.target("dx", dyOf);
        const results = call.run(
            (shape, dtype) =>
                this.#exports.bn_backward(
                    shape, dtype, dyOf.at, xOf.at, gamma.at, beta.at, mean.at, invstd.at, dyOf.at, dgamma.at, dbeta.at,
                    call.options(z, dz)),
            { dx: dyOf, dgamma, dbeta, dz });
        if (dz === NONE) delete results.dz;
        return results;
    }

    moments(...given) {
        const call = new Call(this.#exports, "moments", only("moments", given, ["x", "shape", "dtype"]));
        const x = call.tensor("x");
        const [count, mean, m2] = [call.room(Float64Array), call.room(Float64Array), call.room(Float64Array)];
        return call.run(
            (shape, dtype) => this.#exports.bn_moments(shape, dtype, x.at, count.at, mean.at, m2.at),
            { count, mean, m2 });
    }
}

const SINGLE_VALUE = 20;
const OUT_OF_MEMORY = 41;
const DTYPES = { float32: 1, float64: 2, float16: 3, bfloat16: 4 };
const ELEMENTS = { Float32Array: "float32", Float64Array: "float64", Float16Array: "float16" };
const ARRAYS = {
    float32: "Float32Array",
    float64: "Float64Array",
    float16: 'Float16Array, or Uint16Array and dtype "float16"',
    bfloat16: "Uint16Array",
};
const ANY_ARRAY = "Float32Array, Float64Array or Float16Array, or Uint16Array and a dtype";
const ACTIVATIONS = { identity: 0, relu: 1, leakyRelu: 2, clip: 3, hardSwish: 4, silu: 5 };
const LARGEST = 2 ** 31 - 1; // more is no size in the module's memory
const FORWARD_CALLS = "what forwardTraining or forwardInference gave as saved";
const LINE = 64;
const NONE = { at: 0 }; // stands for NULL

/** The constructor of this realm, whatever the array's. */
const typeOf = (array) => globalThis[array[Symbol.toStringTag]];
const bytesOf = ({ buffer, byteOffset, byteLength }) => new Uint8Array(buffer, byteOffset, byteLength);

/** A value in a message; of an object it tells the type alone. */
function described(value) {
    if (typeof value === "string") return JSON.stringify(value);
    return Object(value) === value ? Object.prototype.toString.call(value).slice(8, -1) : String(value);
}

/** An error in the manner of the library's own sentences. */
function unlike(Kind, name, found, expected) {
    return new Kind(`${name} is ${described(found)}; expected ${expected}`);
}

// The library's sentences name what C calls the arguments.
const WORDS = [
    [/^bn_(\w+)/, (_, name) => camelCase(name)],
    [/\b(?:epilogue|options)->/g, ""],
    [/\b(?:shape->)?outer is\b/g, "shape[0] is"],
    [/\b(?:shape->)?channels is\b/g, "shape[1] is"],
    [/\b(?:shape->)?inner is\b/g, "shape[2] is"],
    [/\bPTRDIFF_MAX\b/g, String(LARGEST)],
    [/\bis (-?)(nan|inf)\b/g, (_, sign, value) => `is ${value === "nan" ? "NaN" : `${sign}Infinity`}`],
    [/\bz\b/g, "residual"],
    [/\b[a-z]+(?:_[a-z]+)+\b/g, (name) => camelCase(name)],
];
const camelCase = (name) => name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase());

/** The one object that a function takes, read once: what is checked is what is used. */
function only(name, given, names) {
    const expected = `one object, ${name}({ ${names.slice(0, 3).join(", ")}, ... })`;
    if (given.length !== 1) throw new TypeError(`${name} is given ${given.length} arguments; expected ${expected}`);
    const [object] = given;
    const isObject = Object(object) === object && typeof object !== "function";
    if (!isObject || Array.isArray(object) || ArrayBuffer.isView(object)) {
        throw unlike(TypeError, `the argument of ${name}`, object, expected);
    }
    const copy = { ...object };
    const unknown = Object.keys(copy).find((key) => !names.includes(key));
    if (unknown === undefined) return copy;
    throw new TypeError(`${unknown} is no argument of ${name}; expected ${names.join(", ")}`);
}

/** A forward call's saved, with all that it has to have; Call checks what is in it. */
function savedOf(found) {
    if (Object(found) !== found) throw unlike(TypeError, "saved", found, FORWARD_CALLS);
    const saved = { ...found };
    const missing = [...SAVED, "residual"].find((name) => saved[name] === undefined);
    if (missing !== undefined) throw unlike(TypeError, `saved.${missing}`, undefined, FORWARD_CALLS);
    if (!Object.keys(DTYPES).includes(saved.dtype)) throw unlike(TypeError, "saved.dtype", saved.dtype, FORWARD_CALLS);
    return saved;
}

/** A forward call's saved as arguments, by the names that its arrays have there. */
function argumentsOf(saved) {
    const { gamma, beta, mean, invstd, dtype, ...settings } = saved;
    const given = Object.fromEntries(SETTINGS.filter((name) => name in settings).map((name) => [name, settings[name]]));
    if (dtype === "float16" || dtype === "bfloat16") given.dtype = dtype;
    for (const [name, array] of Object.entries({ gamma, beta, mean, invstd })) {
        if (array !== null) given[`saved.${name}`] = array;
    }
    return given;
}

const isSame = (a, b) => a === b || (Number.isNaN(a) && Number.isNaN(b));
const isList = (value) => ArrayBuffer.isView(value) || Array.isArray(value);

/** That what a forward call was told, and backward is given again, is still the same. */
function checkAgain(again, saved) {
    for (const name of SAVED.filter((name) => again[name] !== undefined)) {
        const [found, kept] = [again[name], saved[name]];
        const differ = (what, found, kept) => {
            throw unlike(RangeError, `${name}${what}`, found, `${described(kept)}, which is saved.${name}${what}`);
        };
        if (!isList(found) || !isList(kept)) {
            if (!isSame(found, kept)) differ("", found, kept);
            continue;
        }
        if (found[Symbol.toStringTag] !== kept[Symbol.toStringTag]) differ("", found, kept);
        if (found.length !== kept.length) differ(".length", found.length, kept.length);
        const place = Array.prototype.findIndex.call(found, (value, i) => !isSame(value, kept[i]));
        if (place >= 0) differ(`[${place}]`, found[place], kept[place]);
    }
}

/** That x is not what y was written over; x itself may be in another array by now. */
function checkKept(x, saved) {
    const { overwritten } = saved;
    if (!overwritten || x?.buffer !== overwritten.buffer || x.byteOffset !== overwritten.byteOffset) return;
    if (overwritten.byteLength === 0) return;
    throw new RangeError("x is the array that y was written over; expected x as it was, in memory of its own");
}

/** The arguments of one call, checked as far as memory depends on them, and their places in one block of it. */
class Call {
    #exports;
    #name;
    #arrays = [];
    #size = LINE;
    #extents;
    #tensors;
    #parameters;
    #Parameter;

    /** `tensors` is the type of their elements, if it is known already. */
    constructor(exports, name, given, tensors) {
        this.#exports = exports;
        this.#name = name;
        this.given = given;
        this.#tensors = tensors;
        const { shape, dtype } = given;
        if (!Array.isArray(shape)) throw unlike(TypeError, "shape", shape, "[outer, channels, inner]");
        if (shape.length !== 3) throw unlike(TypeError, "shape.length", shape.length, 3);
        this.#extents = [...shape];
        this.#extents.forEach((extent, i) => {
            if (Number.isInteger(extent) && extent >= 0 && extent <= LARGEST) return;
            throw unlike(TypeError, `shape[${i}]`, extent, `a whole number from 0 to ${LARGEST}`);
        });
        if (![undefined, "float16", "bfloat16"].includes(dtype)) {
            throw unlike(TypeError, "dtype", dtype, '"float16" or "bfloat16", or none');
        }
    }

    /** A tensor, of the type of those before it. */
    tensor(name, { optional = false } = {}) {
        if (optional && this.given[name] === undefined) return NONE;
        this.#tensors ??= this.given.dtype ?? this.#elementOf(name);
        return this.#copied(name, this.#tensors, this.#extents[0] * this.#extents[1] * this.#extents[2]);
    }

    /** Arrays of an element per channel, of the type of those before; each may be absent. */
    parameters(...names) {
        return names.map((name) => {
            if (this.given[name] === undefined) return NONE;
            this.#parameters ??= this.#elementOf(name);
            const array = this.#copied(name, this.#parameters, this.#extents[1]);
            this.#Parameter ??= array.Type;
            return array;
        });
    }

    /** That there are running statistics, or neither of the two where they are `optional`. */
    checkRunning({ optional }) {
        const names = ["runningMean", "runningVar"];
        const missing = names.filter((name) => this.given[name] === undefined);
        if (missing.length === 0 || (optional && missing.length === 2)) return;
        const pair = "both runningMean and runningVar, or neither";
        throw unlike(TypeError, missing[0], undefined, optional ? pair : `an array of ${this.#extents[1]} elements`);
    }

    /** The facts about a forward call that backward needs besides its arrays of channels. */
    settings(frozen) {
        const { residual = null, x, y } = this.given;
        const { activation, slope, low, high } = this.#epilogueOptions();
        const isInPlace = y?.buffer === x.buffer && y.byteOffset === x.byteOffset;
        return {
            shape: Object.freeze([...this.#extents]), dtype: this.#tensors, eps: this.#option("eps", 1e-5), frozen,
            activation, slope, low, high, residual, ...(isInPlace && { overwritten: x }),
        };
    }

    statistic(name) {
        return this.#copied(name, "float64", this.#extents[1]);
    }

    /** Room for the gradient of a parameter. */
    parameterRoom() {
        return this.room(this.#Parameter ?? (this.#tensors === "float64" ? Float64Array : Float32Array));
    }

    /** Room for a result; per channel, unless a length is given. */
    room(Type, length = this.#extents[1], argument = {}) {
        const array = { ...argument, Type, length, offset: this.#size, at: 0 };
        this.#size += Math.ceil((length * Type.BYTES_PER_ELEMENT) / LINE) * LINE;
        this.#arrays.push(array);
        return array;
    }

    /**
     * Has what takes the place of an array written to the argument of that name, if there is one: an array like it,
     * whose memory is no other argument's.
     */
    target(name, array) {
        const target = this.given[name];
        if (target === undefined) return;
        const bytes = this.#check(name, array.element, array.length);
        const end = ({ byteOffset, byteLength }) => byteOffset + byteLength;
        for (const { name: other, given } of this.#arrays) {
            const isSame = other === array.name && given.byteOffset === target.byteOffset;
            if (isSame || given?.buffer !== target.buffer) continue;
            if (Math.max(given.byteOffset, target.byteOffset) >= Math.min(end(given), end(target))) continue;
            const exception = name === array.name ? "" : `, or that of ${array.name}`;
            throw new RangeError(`${name} overlaps ${other}; expected memory of its own${exception}`);
        }
        Object.assign(array, { target, targetBytes: bytes });
    }

    #copied(name, element, length) {
        const bytes = this.#check(name, element, length);
        const given = this.given[name];
        return this.room(typeOf(given), length, { name, element, given, bytes });
    }

    /** Its bytes. There are none where it has no elements, and its buffer may be a detached one. */
    #check(name, element, length) {
        const given = this.given[name];
        if (element === undefined || this.#elementOf(name) !== element) {
            throw unlike(TypeError, name, given, ARRAYS[element] ?? ANY_ARRAY);
        }
        if (given.length !== length) throw unlike(RangeError, `${name}.length`, given.length, length);
        if (length === 0) return new Uint8Array(0);
        // The array's own properties may lie. The bytes that are checked here are those that are written later.
        const [bytes, size] = [bytesOf(given), length * typeOf(given).BYTES_PER_ELEMENT];
        if (bytes.length !== size) throw unlike(RangeError, `${name}.byteLength`, bytes.length, size);
        return bytes;
    }

    /** The element type of a typed array. For the bits of 16-bit numbers, `dtype` tells it. */
    #elementOf(name) {
        const array = this.given[name];
        const type = ArrayBuffer.isView(array) ? array[Symbol.toStringTag] : undefined;
        return type === "Uint16Array" ? this.given.dtype : ELEMENTS[type];
    }

    /** bn_options; its bn_epilogue with these arrays, if the call has one. */
    options(z, dz) {
        const epilogue = EPILOGUE.some((name) => this.given[name] !== undefined) ? this.#epilogue(z, dz) : 0;
        return this.#exports.module_options(
            this.#option("eps", 1e-5), this.#option("momentum", 0.1), Number(this.#option("biasedRunningVar", false)),
            Number(this.#option("frozen", false)), DTYPES[this.#parameters] ?? 0, epilogue);
    }

    #epilogue(z, dz) {
        const { activation, slope, low, high } = this.#epilogueOptions();
        return this.#exports.module_epilogue(ACTIVATIONS[activation], slope, low, high, z.at, dz.at);
    }

    #epilogueOptions() {
        const { activation = "identity" } = this.given;
        const names = Object.keys(ACTIVATIONS);
        if (!names.includes(activation)) throw unlike(TypeError, "activation", activation, names.join(", "));
        const [slope, low, high] = [this.#option("slope", 0.01), this.#option("low", 0), this.#option("high", 6)];
        return { activation, slope, low, high };
    }

    #option(name, otherwise) {
        const { [name]: value = otherwise } = this.given;
        if (typeof value !== typeof otherwise) throw unlike(TypeError, name, value, `a ${typeof otherwise}`);
        return value;
    }

    /**
     * Takes the memory, copies the arrays there, and calls `compute` with a bn_shape and a bn_dtype. Gives `results`,
     * each in its target or in a new array, and null for none. No target is written before all that can fail is done.
     */
    run(compute, results) {
        const exports = this.#exports;
        const block = this.#size > LARGEST ? 0 : exports.aligned_alloc(LINE, this.#size);
        if (block === 0) {
            const message = `${this.#name}: memory for arrays is ${this.#size}; expected that many bytes to be free`;
            throw new BatchNormError(message, OUT_OF_MEMORY);
        }
        // Made anew each time: the buffer is another one when the memory has grown.
        const view = ({ Type, at, length }) => new Type(exports.memory.buffer, at, length);
        try {
            for (const array of this.#arrays) {
                array.at = block + array.offset;
                if (array.given !== undefined) bytesOf(view(array)).set(array.bytes);
            }
            const status = compute(exports.module_shape(...this.#extents), DTYPES[this.#tensors]);
            if (status !== 0) throw this.#refusal(status);
            const take = (array) => (array === NONE ? null : (array.target ?? view(array).slice()));
            const taken = Object.entries(results).map(([name, array]) => [name, take(array)]);
            for (const array of this.#arrays) array.targetBytes?.set(bytesOf(view(array)));
            return Object.fromEntries(taken);
        } finally {
            exports.free(block);
        }
    }

    /** One value per channel has no variance, and is most often met where evaluation was meant. */
    #refusal(status) {
        const hint = status === SINGLE_VALUE ? " (forwardInference takes one)" : "";
        return new BatchNormError(this.#sentence(this.#exports.bn_last_error()) + hint, status);
    }

    #sentence(start) {
        const bytes = new Uint8Array(this.#exports.memory.buffer, start);
        const text = new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
        return WORDS.reduce((text, [words, replacement]) => text.replace(words, replacement), text);
    }
}
