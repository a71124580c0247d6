// SPDX-License-Identifier: Apache-2.0
// The live page's engine as its worker has it: one script of batchnorm.js and what live/ adds to it.
import { readFile } from "node:fs/promises";

const SOURCES = ["network.js", "run.js", "watch.js", "lessons.js", "worker.js"];
const NAMES = [
    "batchnorm", "Network", "Run", "LayerWatch", "LandscapeWatch", "DEFAULTS", "LESSONS", "randomOf", "split",
];

/** `folder` has batchnorm.js, batchnorm.wasm and digits.bin; `posted` takes what the worker tells. */
export async function engine(folder, posted = () => {}) {
    const read = (name) => readFile(new URL(name, folder));
    const text = async (name) => readFile(new URL(`../../live/${name}`, import.meta.url), "utf8");
    const scripts = [String(await read("batchnorm.js")), ...(await Promise.all(SOURCES.map(text)))];
    const names = `return { ${NAMES.join(", ")}, told: (data) => onmessage({ data }) };`;
    const body = ['"use strict"; let onmessage;', ...scripts, names].join("\n");
    const it = new Function("postMessage", body)(posted);
    const bytes = new Uint8Array(await read("digits.bin"));
    const images = bytes.length / 65;
    const digits = { labels: bytes.slice(0, images), pixels: bytes.slice(images) };
    const wasm = await read("batchnorm.wasm");
    return { ...it, bn: await it.batchnorm.load(wasm), digits, wasm };
}

/** All epochs of a run, as the page gets them, and recalibrated in the end. */
export function train({ Run, bn, digits }, settings, epochs, watches = []) {
    const run = new Run(bn, digits, settings, watches);
    const found = [];
    for (let epoch; found.length < epochs && (epoch = run.next()) !== null; ) found.push(epoch);
    return { epochs: found, ended: run.ended, recalibrated: run.ended === null ? run.recalibrate() : null };
}
