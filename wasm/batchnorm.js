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
 * scripts/wasm makes two files of this one and its parts (words, views, settings, saved, call): the ES module, and a
 * script for where there are no modules, such as a worker of a page that was opened from disk. The script has the same
 * two names in a global object, `batchnorm`:
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

const EPILOGUE = ["activation", "slope", "low", "high", "residual", "saveMask"];
const ARRAYS_OF_FORWARD = ["x", "shape", "dtype", "gamma", "beta", "runningMean", "runningVar", "y"];
const FORWARD = [...ARRAYS_OF_FORWARD, "eps", ...EPILOGUE, "groups", "weights", "masked"];
const TRAINING = [...FORWARD, "momentum", "biasedRunningVar"];
// A forward call saves what it was told and what it found, for backward. Arguments that are given again have to agree.
const SETTINGS = ["shape", "dtype", "eps", "frozen", "activation", "slope", "low", "high", "groups", "masked"];
const SAVED = [...SETTINGS, "layout", "hasResidual", "mean", "invstd", "gamma", "beta", "weights", "mask"];
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
        const [mean, invstd, weights] = [call.statisticRoom(), call.statisticRoom(), call.weights()];
        const [output, mask] = [call.output("y", x), call.maskRoom()];
        if (isTraining) running.forEach((array) => array !== NONE && call.target(array.name, array));
        const { y, ...saved } = call.run(
            (shape, dtype) =>
                compute(
                    shape, dtype, x.at, gamma.at, beta.at, running[0].at, running[1].at, output.at, mean.at, invstd.at,
                    call.options(z, NONE, mask)),
            // Copies: what gamma and beta are now, not what they will be when backward is called.
            { y: output, mean, invstd, gamma, beta, weights, mask });
        return { y, saved: Object.freeze({ ...call.settings(!isTraining), ...saved }) };
    }

    backward(...given) {
        const { saved: found, ...again } = only("backward", given, BACKWARD);
        const saved = savedOf(found);
        checkAgain(again, saved);
        const { dy, x, dx, residual = saved.residual ?? undefined } = again;
        if (!saved.hasResidual && residual !== undefined) {
            throw unlike(RangeError, "residual", residual, "none, as the forward call had none");
        }
        const call = new Call(this.#exports, "backward", { ...argumentsOf(saved), dy, x, dx, residual }, saved);
        checkKept(call.given.x, saved);
        const [dyOf, xOf, z] = [call.tensor("dy"), call.tensor("x"), call.tensor("residual", { optional: true })];
        const [gamma, beta] = call.parameters("saved.gamma", "saved.beta");
        const [mean, invstd] = [call.statistic("saved.mean"), call.statistic("saved.invstd")];
        const [dgamma, dbeta] = [call.parameterRoom(), call.parameterRoom()];
        const [weights, mask] = [call.weights(), call.savedMask()];
        const dz = saved.hasResidual ? call.tensorRoom("dz", dyOf) : NONE;
        const output = call.output("dx", dyOf);
        const results = call.run(
            (shape, dtype) =>
                this.#exports.bn_backward(
                    shape, dtype, dyOf.at, xOf.at, gamma.at, beta.at, mean.at, invstd.at, output.at, dgamma.at,
                    dbeta.at, call.options(z, dz, mask)),
            { dx: output, dgamma, dbeta, dz });
        if (dz === NONE) delete results.dz;
        return results;
    }

    moments(...given) {
        const call = new Call(this.#exports, "moments", only("moments", given, ["x", "shape", "dtype"]));
        const x = call.tensor("x");
        const [count, mean, m2] = [call.room(Float64Array), call.room(Float64Array), call.room(Float64Array)];
        return call.run(
            (shape, dtype) => this.#exports.bn_moments(shape, dtype, x.at, count.at, mean.at, m2.at, 0, 0),
            { count, mean, m2 });
    }
}
