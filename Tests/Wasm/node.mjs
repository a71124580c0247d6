// SPDX-License-Identifier: Apache-2.0
// node.mjs FOLDER: the tests in Node, of the module in that folder. The last line counts them.
import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

import { runBoth } from "./tests.mjs";

const folder = pathToFileURL(`${resolve(process.argv[2])}/`);
// A script element runs it in the same way: not strict, and its variables are the global object's.
(0, eval)(await readFile(new URL("batchnorm.js", folder), "utf8"));
const { passed, failures } = await runBoth(await import(new URL("batchnorm.mjs", folder)), folder, async (url) => {
    const bytes = await readFile(url);
    return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
});
for (const failure of failures) console.error(failure);
console.log(`${passed} passed, ${failures.length} failed`);
process.exitCode = failures.length > 0 ? 1 : 0;
