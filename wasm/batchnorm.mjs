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
    if (!globalThis.process?.versions?.node || /^(https?|data|blob):/.test(url)) return fetch(url);
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
        return this.#forward("bn_forward_training", new Call(this.#exports, given, TRAINING));
    }

    forwardInference(given) {
        return this.#forward("bn_forward_inference", new Call(this.#exports, given, FORWARD));
    }

    #forward(name, call) {
        const [x, z] = [call.tensor("x"), call.tensor("residual", { optional: true })];
        const [gamma, beta, ...running] = call.parameters("gamma", "beta", "runningMean", "runningVar");
        const [mean, invstd] = [call.room(Float64Array), call.room(Float64Array)];
        call.checkTarget("y", x);
        return call.run(
            // In the module's memory, y takes the place of x.
            (shape, dtype) =>
                this.#exports[name](
                    shape, dtype, x.at, gamma.at, beta.at, running[0].at, running[1].at, x.at, mean.at, invstd.at,
                    call.options(z, NONE, NONE)),
            (result) => {
                for (const array of running) if (array !== NONE) result(array, array.given);
                return { y: result(x, call.given.y), mean: result(mean), invstd: result(invstd) };
            });
    }

    backward(given) {
        const call = new Call(this.#exports, given, BACKWARD);
        const [dy, x, z] = [call.tensor("dy"), call.tensor("x"), call.tensor("residual", { optional: true })];
        const [gamma, beta] = call.parameters("gamma", "beta");
        const [mean, invstd] = [call.statistic("mean"), call.statistic("invstd")];
        const [dgamma, dbeta] = [call.parameterRoom(), call.parameterRoom()];
        const dz = z === NONE ? NONE : call.room(z.Type, z.length);
        call.checkTarget("dx", dy);
        return call.run(
            (shape, dtype) =>
                this.#exports.bn_backward(
                    shape, dtype, dy.at, x.at, gamma.at, mean.at, invstd.at, dy.at, dgamma.at, dbeta.at,
                    call.options(z, dz, beta)),
            (result) => {
                const gradients = { dx: result(dy, call.given.dx), dgamma: result(dgamma), dbeta: result(dbeta) };
                return dz === NONE ? gradients : { ...gradients, dz: result(dz) };
            });
    }

    moments(given) {
        const call = new Call(this.#exports, given, ["x", "shape", "dtype"]);
        const x = call.tensor("x");
        const [count, mean, m2] = [call.room(Float64Array), call.room(Float64Array), call.room(Float64Array)];
        return call.run(
            (shape, dtype) => this.#exports.bn_moments(shape, dtype, x.at, count.at, mean.at, m2.at),
            (result) => ({ count: result(count), mean: result(mean), m2: result(m2) }));
    }
}

const OUT_OF_MEMORY = 41;
const DTYPES = { float32: 1, float64: 2, float16: 3, bfloat16: 4 };
const ELEMENTS = { Float32Array: "float32", Float64Array: "float64", Float16Array: "float16" };
const ACTIVATIONS = { identity: 0, relu: 1, leakyRelu: 2, clip: 3, hardSwish: 4, silu: 5 };
const LARGEST = 2 ** 31 - 1; // more is no size in the module's memory
const LINE = 64;
const NONE = { at: 0 }; // what stands for NULL

/** Of this realm, whatever the array's. */
const typeOf = (array) => globalThis[array[Symbol.toStringTag]];

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
        if (typeof given !== "object" || given === null) throw new TypeError("expected an object of arguments");
        const unknown = Object.keys(given).find((name) => !names.includes(name));
        if (unknown !== undefined) throw new TypeError(`${unknown} is no argument; there are ${names.join(", ")}`);
        this.#exports = exports;
        this.given = { ...given };
        const { shape } = this.given;
        const isExtent = (extent) => Number.isInteger(extent) && extent >= 0 && extent <= LARGEST;
        if (!Array.isArray(shape) || shape.length !== 3 || !shape.every(isExtent)) {
            throw new TypeError(`shape: expected [outer, channels, inner], whole numbers from 0 to ${LARGEST}`);
        }
        this.#extents = [...shape];
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
            this.#Parameter = array.Type;
            return array;
        });
    }

    statistic(name) {
        const array = this.given[name];
        if (!(ArrayBuffer.isView(array) && array[Symbol.toStringTag] === "Float64Array")) {
            throw new TypeError(`${name}: expected the Float64Array that the forward call gave`);
        }
        return this.#copied(name, "float64", this.#extents[1]);
    }

    /** Room for the gradient of a parameter. */
    parameterRoom() {
        return this.room(this.#Parameter ?? (this.#tensors === "float64" ? Float64Array : Float32Array));
    }

    /** Room for a result; per channel, unless a length is given. */
    room(Type, length = this.#extents[1], given = undefined) {
        const array = { Type, length, given, offset: this.#size, at: 0 };
        this.#size += Math.ceil((length * Type.BYTES_PER_ELEMENT) / LINE) * LINE;
        this.#arrays.push(array);
        return array;
    }

    /** What a result is to be written to, if anything: an array like the one that it takes the place of. */
    checkTarget(name, array) {
        if (this.given[name] === undefined) return;
        this.#check(name, this.#tensors, array.length);
    }

    #copied(name, element, length) {
        this.#check(name, element, length);
        const given = this.given[name];
        return this.room(typeOf(given), length, given);
    }

    #check(name, element, length) {
        const found = this.#elementOf(name);
        if (found !== element) throw new TypeError(`${name} is of ${found}, expected ${element}`);
        const { length: given } = this.given[name];
        if (given !== length) throw new RangeError(`${name} has ${given} elements, expected ${length}`);
    }

    /** What a typed array holds. The bits of 16-bit numbers do not say what they are: `dtype` does. */
    #elementOf(name) {
        const array = this.given[name];
        const type = ArrayBuffer.isView(array) ? array[Symbol.toStringTag] : undefined;
        const { dtype } = this.given;
        if (type === "Uint16Array" && (dtype === "float16" || dtype === "bfloat16")) return dtype;
        if (!Object.hasOwn(ELEMENTS, type)) {
            throw new TypeError(
                `${name}: expected a Float32Array, Float64Array or Float16Array, or a Uint16Array and a dtype, ` +
                '"float16" or "bfloat16"');
        }
        return ELEMENTS[type];
    }

    /** bn_options; its bn_epilogue with these arrays, if the call has one. */
    options(z, dz, beta) {
        const epilogue = EPILOGUE.some((name) => this.given[name] !== undefined) ? this.#epilogue(z, dz, beta) : 0;
        return this.#exports.module_options(
            this.#number("eps", 1e-5), this.#number("momentum", 0.1), this.#flag("biasedRunningVar"),
            this.#flag("frozen"), DTYPES[this.#parameters] ?? 0, epilogue);
    }

    #epilogue(z, dz, beta) {
        const { activation = "identity" } = this.given;
        if (!Object.hasOwn(ACTIVATIONS, activation)) {
            throw new TypeError(`activation is ${activation}, expected ${Object.keys(ACTIVATIONS).join(", ")}`);
        }
        return this.#exports.module_epilogue(
            ACTIVATIONS[activation], this.#number("slope", 0.01), this.#number("low", 0), this.#number("high", 6),
            z.at, dz.at, beta.at);
    }

    #number(name, otherwise) {
        const { [name]: value = otherwise } = this.given;
        if (typeof value !== "number") throw new TypeError(`${name}: expected a number`);
        return value;
    }

    #flag(name) {
        const { [name]: value = false } = this.given;
        if (typeof value !== "boolean") throw new TypeError(`${name}: expected true or false`);
        return value ? 1 : 0;
    }

    /**
     * Takes the memory, copies the arrays there, and calls `compute` with a bn_shape and a bn_dtype; then `results` with
     * what reads an array, into another or a new one.
     */
    run(compute, results) {
        const exports = this.#exports;
        const block = this.#size > LARGEST ? 0 : exports.aligned_alloc(LINE, this.#size);
        if (block === 0) throw new BatchNormError(`no ${this.#size} bytes for the arrays of a call`, OUT_OF_MEMORY);
        // Made anew each time: the buffer is another one when the memory has grown.
        const view = ({ Type, at, length }) => new Type(exports.memory.buffer, at, length);
        try {
            for (const array of this.#arrays) {
                array.at = block + array.offset;
                if (array.given !== undefined) view(array).set(array.given);
            }
            const status = compute(exports.module_shape(...this.#extents), DTYPES[this.#tensors]);
            if (status !== 0) throw new BatchNormError(this.#sentence(exports.bn_last_error()), status);
            return results((array, target) => {
                if (target === undefined) return view(array).slice();
                target.set(view({ ...array, Type: typeOf(target) }));
                return target;
            });
        } finally {
            exports.free(block);
        }
    }

    #sentence(start) {
        const bytes = new Uint8Array(this.#exports.memory.buffer, start);
        return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
    }
}
