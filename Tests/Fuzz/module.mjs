// SPDX-License-Identifier: Apache-2.0
// module.mjs FOLDER [SECONDS [SEED [NUMBER]]]: random calls of the ES module in that folder, most of them with something
// wrong. A call may throw no more than a TypeError, a RangeError or a BatchNormError, with a sentence; it changes no byte
// but the outputs, and those only if it succeeds. Calls that are right give what the formulas give. With NUMBER it is one
// call alone, as a fault names it. The last line counts functions.
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

import { Call } from "./module/calls.mjs";
import { Draws } from "./module/draws.mjs";
import { difference, expected } from "./module/oracle.mjs";
import { spoil } from "./module/wrongs.mjs";

const [folder, seconds = "6", seed = "1", only] = process.argv.slice(2);
const at = pathToFileURL(`${resolve(folder)}/`);
const { load, BatchNormError } = await import(new URL("batchnorm.mjs", at));

// The module's memory is its own affair; here its exports are kept, to look into it.
let exports;
const instantiate = WebAssembly.instantiate;
WebAssembly.instantiate = async (...given) => {
    const instance = await instantiate(...given);
    exports = instance.exports;
    return instance;
};
const bn = await load(await readFile(new URL("batchnorm.wasm", at)));
WebAssembly.instantiate = instantiate;

const counts = Object.fromEntries(
    ["forwardTraining", "forwardInference", "backward", "moments"].map((name) => [name, { made: 0, refused: 0, compared: 0 }]));

function attempt(call) {
    try {
        return { results: bn[call.name](...(call.arguments ?? [call.given])) };
    } catch (error) {
        return { error };
    }
}

/** The fault of an error, if it has one. */
function unfit(error, call) {
    if (error === call.own) return undefined;
    const isKnown = error instanceof BatchNormError || error instanceof TypeError || error instanceof RangeError;
    if (!isKnown) return `${error?.name} is thrown: ${error?.stack}`;
    // A sentence names an argument and what was expected. About buffers that are gone the language has its own.
    const isOurs = /expected /.test(error.message);
    const isOfLanguage = call.mayThrow && /detached|length|Invalid|offset|bounds|Construct|convert|iterable|undefined|function|null|primitive/i.test(error.message);
    return isOurs || isOfLanguage ? undefined : `${error.name} says: ${error.message}`;
}

function one(number) {
    const draws = new Draws(Number(seed), number);
    const call = new Call(draws, bn, exports);
    const wrong = draws.is(0.7) ? spoil(draws, call) : "";
    call.mayThrow = /lies|detached|shrank|strange|saved|changes/.test(wrong);
    const before = call.snapshot();
    const given = Object.fromEntries(Object.entries(wrong ? {} : call.given).map(
        ([name, value]) => [name, ArrayBuffer.isView(value) ? value.slice() : value]));
    const { results, error } = attempt(call);
    const count = counts[call.name];
    count.made++;
    const fault = (said) => `${call.name}, ${wrong || "nothing wrong"}: ${said}`;
    try {
        if (error) {
            count.refused++;
            if (!wrong && !(error instanceof BatchNormError && error.status === 20)) return fault(`is refused: ${error.stack}`);
            const unlike = unfit(error, call);
            if (unlike) return fault(unlike);
        } else if (call.mustThrow) {
            return fault("is not refused");
        }
        const written = error ? [] : [...call.written, call.given.y, call.given.dx].filter(ArrayBuffer.isView);
        const place = call.changed(before, written);
        if (place) return fault(`${place} is another than before${error ? `, after ${error.message}` : ""}`);
        if (wrong || error) return undefined;
        const told = call.name === "backward" ? { ...call.forward, dy: given.dy } : given;
        const wanted = expected(call, told, call.shape);
        if (wanted === undefined) return undefined;
        count.compared++;
        const found = { ...call.given, ...results };
        const differs = difference(call, found, wanted);
        return differs && fault(differs);
    } finally {
        call.release?.();
    }
}

/** Memory that grows, and that there is not. */
function grown() {
    const channels = 1 << 20;
    const x = Float32Array.from({ length: 2 * channels }, (_, i) => (i < channels ? 1 : 3));
    const { y } = bn.forwardTraining({ x, shape: [2, channels, 1], eps: 0 });
    if (y.some((value, i) => value !== (i < channels ? -1 : 1))) return "memory that grew: y is another";
    for (const shape of [[2 ** 31 - 1, 1, 0], [0, 2 ** 28, 1], [0, 2 ** 31 - 1, 1]]) {
        try {
            bn.moments({ x: new Float64Array(0), shape });
        } catch (error) {
            if (error instanceof BatchNormError) continue;
            return `memory that there is not, shape ${shape}: ${error.stack}`;
        }
    }
    return undefined;
}

let fault = only === undefined ? grown() : undefined;
const size = exports.memory.buffer.byteLength;
const end = Date.now() + 1000 * Number(seconds);
let number = Number(only ?? 0);
while (!fault) {
    fault = one(number);
    if (fault) fault += `\nseed ${seed}, call ${number}`;
    if (only !== undefined || (number >= 500 && Date.now() > end)) break;
    number++;
}
// All that calls took is free again.
if (!fault && exports.memory.buffer.byteLength > size) fault = `memory grew to ${exports.memory.buffer.byteLength} from ${size}`;
if (fault) console.log(fault);
for (const [name, { made, refused, compared }] of Object.entries(counts)) {
    console.log(`${name}: ${made} calls, seed ${seed}, ${refused} refused, ${compared} compared`);
}
const idle = only === undefined && Object.values(counts).some(({ compared }) => compared === 0);
if (idle && !fault) console.log("nothing was compared");
console.log(fault || idle ? "0 passed, 1 failed" : `${only === undefined ? 4 : 1} passed, 0 failed`);
process.exitCode = fault || idle ? 1 : 0;
