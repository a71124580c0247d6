// SPDX-License-Identifier: Apache-2.0
/**
 * Batch normalization in WebAssembly, for browsers and Node: typed arrays in and out, errors as exceptions.
 *
 *     import { load } from "./batchnorm.mjs";
 *     const bn = await load();
 *     const { y, mean, invstd } = bn.forwardTraining({ x, shape: [outer, channels, inner], gamma, beta });
 *
 * batchnorm.d.mts says what each function takes, batchnorm.h what it computes: the bits are the native library's. The
 * arrays of a call are copied into the module's memory and back, and that memory is free again when the call is over.
 */

/** What the library refuses, in its own sentence; `status` is its bn_status. */
export class BatchNormError extends Error {
    constructor(message, status) {
        super(message);
        this.name = "BatchNormError";
        this.status = status;
    }
}

/** Instantiates batchnorm.wasm: the one beside this file, or that of a URL, a Response or its bytes; or a module. */
export async function load(source = new URL("batchnorm.wasm", import.meta.url)) {
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
const BACKWARD = ["dy", "x", "shape", "dtype", "gamma", "beta", "mean", "invstd", "frozen", "dx", ...EPILOGUE];

class BatchNorm {
    #exports;

    constructor(exports) {
        this.#exports = exports;
    }

    get version() {
        return this.#exports.bn_version();
    }

    forwardTraining(given) {
        return this.#forward("bn_forward_training", new Call(this.#exports, given, TRAINING), true);
    }

    forwardInference(given) {
        return this.#forward("bn_forward_inference", new Call(this.#exports, given, FORWARD), false);
    }

    #forward(name, call, isTraining) {
        const [x, z] = [call.tensor("x"), call.tensor("residual", { optional: true })];
        const [gamma, beta, ...running] = call.parameters("gamma", "beta", "runningMean", "runningVar");
        const [mean, invstd] = [call.room(Float64Array), call.room(Float64Array)];
        call.target("y", x);
        if (isTraining) running.forEach((array) => array !== NONE && call.target(array.name, array));
        return call.run(
            // In the module's memory, y takes the place of x.
            (shape, dtype) =>
                this.#exports[name](
                    shape, dtype, x.at, gamma.at, beta.at, running[0].at, running[1].at, x.at, mean.at, invstd.at,
                    call.options(z, NONE, NONE)),
            { y: x, mean, invstd });
    }

    backward(given) {
        const call = new Call(this.#exports, given, BACKWARD);
        const [dy, x, z] = [call.tensor("dy"), call.tensor("x"), call.tensor("residual", { optional: true })];
        const [gamma, beta] = call.parameters("gamma", "beta");
        const [mean, invstd] = [call.statistic("mean"), call.statistic("invstd")];
        const [dgamma, dbeta] = [call.parameterRoom(), call.parameterRoom()];
        const dz = z === NONE ? NONE : call.room(z.Type, z.length);
        call.target("dx", dy);
        return call.run(
            (shape, dtype) =>
                this.#exports.bn_backward(
                    shape, dtype, dy.at, x.at, gamma.at, mean.at, invstd.at, dy.at, dgamma.at, dbeta.at,
                    call.options(z, dz, beta)),
            { dx: dy, dgamma, dbeta, ...(dz !== NONE && { dz }) });
    }

    moments(given) {
        const call = new Call(this.#exports, given, ["x", "shape", "dtype"]);
        const x = call.tensor("x");
        const [count, mean, m2] = [call.room(Float64Array), call.room(Float64Array), call.room(Float64Array)];
        return call.run(
            (shape, dtype) => this.#exports.bn_moments(shape, dtype, x.at, count.at, mean.at, m2.at),
            { count, mean, m2 });
    }
}

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
const LINE = 64;
const NONE = { at: 0 }; // what stands for NULL

/** Of this realm, whatever the array's. */
const typeOf = (array) => globalThis[array[Symbol.toStringTag]];
const bytesOf = ({ buffer, byteOffset, byteLength }) => new Uint8Array(buffer, byteOffset, byteLength);

/** An error in the manner of the library's own sentences; of an object it tells the type alone. */
function unlike(Kind, name, found, expected) {
    let text = String;
    if (typeof found === "string") text = JSON.stringify;
    if (Object(found) === found) text = (object) => Object.prototype.toString.call(object).slice(8, -1);
    return new Kind(`${name} is ${text(found)}; expected ${expected}`);
}

/** The arguments of one call, checked as far as memory depends on them, and their places in one block of it. */
class Call {
    #exports;
    #arrays = [];
    #size = LINE;
    #extents;
    #tensors;
    #parameters;
    #Parameter;

    constructor(exports, given, names) {
        if (Object(given) !== given) throw unlike(TypeError, "call", given, "an object of arguments");
        this.#exports = exports;
        this.given = { ...given };
        const unknown = Object.keys(this.given).find((name) => !names.includes(name));
        if (unknown !== undefined) throw new TypeError(`${unknown} is no argument; expected ${names.join(", ")}`);
        const { shape, dtype } = this.given;
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

    /** What has an element per channel, of the type of those before it; each may be absent. */
    parameters(...names) {
        return names.map((name) => {
            if (this.given[name] === undefined) return NONE;
            this.#parameters ??= this.#elementOf(name);
            const array = this.#copied(name, this.#parameters, this.#extents[1]);
            this.#Parameter ??= array.Type;
            return array;
        });
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
        this.#check(name, array.element, array.length);
        const end = ({ byteOffset, byteLength }) => byteOffset + byteLength;
        for (const { name: other, given } of this.#arrays) {
            const isSame = other === array.name && given.byteOffset === target.byteOffset;
            if (isSame || given?.buffer !== target.buffer) continue;
            if (Math.max(given.byteOffset, target.byteOffset) >= Math.min(end(given), end(target))) continue;
            const exception = name === array.name ? "" : `, or that of ${array.name}`;
            throw new RangeError(`${name} overlaps ${other}; expected memory of its own${exception}`);
        }
        array.target = target;
    }

    #copied(name, element, length) {
        this.#check(name, element, length);
        const given = this.given[name];
        return this.room(typeOf(given), length, { name, element, given });
    }

    #check(name, element, length) {
        const given = this.given[name];
        if (element === undefined || this.#elementOf(name) !== element) {
            throw unlike(TypeError, name, given, ARRAYS[element] ?? ANY_ARRAY);
        }
        if (given.length !== length) throw unlike(RangeError, `${name}.length`, given.length, length);
    }

    /** What a typed array holds. The bits of 16-bit numbers do not say what they are: `dtype` does. */
    #elementOf(name) {
        const array = this.given[name];
        const type = ArrayBuffer.isView(array) ? array[Symbol.toStringTag] : undefined;
        return type === "Uint16Array" ? this.given.dtype : ELEMENTS[type];
    }

    /** bn_options; its bn_epilogue with these arrays, if the call has one. */
    options(z, dz, beta) {
        const epilogue = EPILOGUE.some((name) => this.given[name] !== undefined) ? this.#epilogue(z, dz, beta) : 0;
        return this.#exports.module_options(
            this.#option("eps", 1e-5), this.#option("momentum", 0.1), this.#option("biasedRunningVar", false),
            this.#option("frozen", false), DTYPES[this.#parameters] ?? 0, epilogue);
    }

    #epilogue(z, dz, beta) {
        const { activation = "identity" } = this.given;
        const names = Object.keys(ACTIVATIONS);
        if (!names.includes(activation)) throw unlike(TypeError, "activation", activation, names.join(", "));
        return this.#exports.module_epilogue(
            ACTIVATIONS[activation], this.#option("slope", 0.01), this.#option("low", 0), this.#option("high", 6),
            z.at, dz.at, beta.at);
    }

    #option(name, otherwise) {
        const { [name]: value = otherwise } = this.given;
        if (typeof value !== typeof otherwise) throw unlike(TypeError, name, value, `a ${typeof otherwise}`);
        return Number(value);
    }

    /**
     * Takes the memory, copies the arrays there, and calls `compute` with a bn_shape and a bn_dtype. Gives `results`,
     * each in its target or in a new array. No target is written before all that can fail is done.
     */
    run(compute, results) {
        const exports = this.#exports;
        const block = this.#size > LARGEST ? 0 : exports.aligned_alloc(LINE, this.#size);
        if (block === 0) throw new BatchNormError(`no ${this.#size} bytes for the arrays of a call`, OUT_OF_MEMORY);
        // Made anew each time: the buffer is another one when the memory has grown.
        const view = ({ Type, at, length }) => new Type(exports.memory.buffer, at, length);
        // Bytes, as the types of an array and its target may differ; none, and the buffer may be a detached one.
        const copy = (from, to) => from.length > 0 && bytesOf(to).set(bytesOf(from));
        try {
            for (const array of this.#arrays) {
                array.at = block + array.offset;
                if (array.given !== undefined) copy(array.given, view(array));
            }
            const status = compute(exports.module_shape(...this.#extents), DTYPES[this.#tensors]);
            if (status !== 0) throw new BatchNormError(this.#sentence(exports.bn_last_error()), status);
            const taken = Object.entries(results).map(([name, array]) => [name, array.target ?? view(array).slice()]);
            for (const array of this.#arrays) if (array.target !== undefined) copy(view(array), array.target);
            return Object.fromEntries(taken);
        } finally {
            exports.free(block);
        }
    }

    #sentence(start) {
        const bytes = new Uint8Array(this.#exports.memory.buffer, start);
        return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
    }
}
