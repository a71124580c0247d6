// SPDX-License-Identifier: Apache-2.0
// node.mjs FOLDER: the tests of the live page's engine in Node; the folder has batchnorm.js, batchnorm.wasm, digits.bin
// and numpy.json. The last line counts them.
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

import { engine } from "./engine.mjs";
import { lessonTests } from "./lessons.mjs";
import { networkTests } from "./network.mjs";
import { numpyTests } from "./numpy.mjs";
import { runTests } from "./runs.mjs";
import { workerTests } from "./worker.mjs";

const folder = pathToFileURL(`${resolve(process.argv[2])}/`);
let passed = 0;
let failed = 0;
function count(name, fault) {
    if (fault === null) return passed++;
    failed++;
    return console.error(`${name}: ${fault}`);
}

const it = await engine(folder);
const tests = { ...networkTests, ...numpyTests, ...runTests, ...workerTests };
for (const [name, test] of Object.entries(tests)) {
    try {
        await test({ ...it, folder });
        count(name, null);
    } catch (error) {
        count(name, error.stack);
    }
}
for (const { name, fault } of await lessonTests(folder)) count(name, fault);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
