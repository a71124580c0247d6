// SPDX-License-Identifier: Apache-2.0
// The ways to load the module, its memory, and the C ABI that it exports.
import { batch, check, checkSame, shape, throws } from "./assertions.mjs";

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

export const moduleChecks = {
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
        check(exports.bn_moments(at, 1, 64, 64, 65536, 131072, 0, 0) === 41, "bn_moments");
        const message = text(exports.bn_last_error());
        check(/^bn_moments: working memory is \d+; expected that many bytes to be free$/.test(message), message);
    },

    "memory that grows in the middle of a call": async ({ bytes, load }) => {
        // Every export that is called grows it, before and after, so that each buffer of before is detached.
        const { instantiate } = WebAssembly;
        let [memory, growths] = [undefined, 0];
        const grow = () => (memory.grow(1), growths++);
        WebAssembly.instantiate = async (module) => {
            const { exports } = await instantiate.call(WebAssembly, module);
            memory = exports.memory;
            const growing = (call) => (...given) => (grow(), [call(...given), grow()][0]);
            const wrap = ([name, it]) => [name, it === memory ? it : growing(it)];
            return { exports: Object.fromEntries(Object.entries(exports).map(wrap)) };
        };
        let grown;
        try {
            grown = await load(bytes);
        } finally {
            WebAssembly.instantiate = instantiate;
        }
        const steady = await load(bytes);
        const results = (bn) => {
            const running = { runningMean: Float32Array.of(0, 0, 0), runningVar: Float32Array.of(1, 1, 1) };
            const [x, gamma, beta, y] = [batch(0), Float32Array.of(1, 2, 3), Float32Array.of(1, 0, -1), batch(1)];
            const given = { x, shape, gamma, beta, y, residual: batch(2), activation: "silu", ...running };
            const { saved } = bn.forwardTraining(given);
            const inferred = bn.forwardInference({ ...given, y: undefined });
            const gradients = bn.backward({ dy: batch(3), x, saved });
            const { mean, invstd } = saved;
            const { status, message } = throws({}, () => bn.forwardTraining({ x, shape, eps: -1 }));
            check(status === 5 && /eps is -1/.test(message), message);
            return { y, mean, invstd, inferred: inferred.y, ...running, ...gradients, ...bn.moments({ x, shape }) };
        };
        const [found, expected] = [results(grown), results(steady)];
        for (const name in expected) checkSame(found[name], expected[name], undefined, name);
        check(growths >= 40, `${growths} growths`);
        // The memory grows by itself: each call needs more than all before it, and the results of the first stay.
        const kept = expected.y.slice();
        for (let channels = 1; channels <= 1 << 20; channels *= 4) {
            const x = Float32Array.from({ length: 4 * channels }, (_, i) => (i * 37) % 101);
            const { y, saved } = steady.forwardTraining({ x, shape: [4, channels, 1] });
            const { dx } = steady.backward({ dy: x, x, saved });
            for (const array of [y, dx]) check(array.every(Number.isFinite), `${channels} channels`);
            const mean = steady.moments({ x, shape: [4, channels, 1] }).mean;
            checkSame(saved.mean, mean, undefined, "mean");
        }
        checkSame(expected.y, kept, undefined, "y");
    },

    "every way to load": async ({ url, bytes, load, isModule }) => {
        const module = await WebAssembly.compile(bytes);
        check(WebAssembly.Module.imports(module).length === 0, "it imports something");
        const typed = new Response(bytes, { headers: { "Content-Type": "application/wasm" } });
        const binary = Array.from(new Uint8Array(bytes), (byte) => String.fromCharCode(byte)).join("");
        const data = `data:application/wasm;base64,${btoa(binary)}`;
        const blob = URL.createObjectURL(new Blob([bytes]));
        const sources = [bytes, new Uint8Array(bytes), module, typed, new Response(bytes)];
        sources.push(url, url.href, decodeURI(url.pathname), data, new URL(data), blob);
        if (isModule) sources.push(undefined); // a script knows nothing that stands beside it
        for (const source of [...sources, Promise.resolve(bytes)]) {
            const bn = await load(source);
            check(Math.floor(bn.version / 10000) === 2, "version");
        }
        if (!isModule) {
            const error = await load().catch((error) => error);
            check(error instanceof TypeError && /^source is undefined; expected the bytes/.test(error.message), error);
        }
        const missing = await load(new Response("", { status: 404 })).catch((error) => error);
        check(/404/.test(missing.message), `${missing.message}`);
    },

    "structures and sizes of 32 bits": async ({ bytes }) => {
        const { exports, text } = await instantiate(bytes);
        const [values, shape] = [exports.aligned_alloc(64, 64), exports.module_shape(1, 2, 2)];
        const write = (at, value) => (new Uint32Array(exports.memory.buffer)[at / 4] = value);
        const moments = () => exports.bn_moments(shape, 1, values, values + 16, values + 32, values + 48, 0, 0);
        check(moments() === 0, "struct_size 32");
        for (const size of [28, 64]) {
            write(shape, size); // less, and what it is in 64 bits
            check(moments() === 4, `struct_size ${size}`);
        }
        const message = "bn_moments: shape->struct_size is 64; expected sizeof(bn_shape), which is 32";
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
