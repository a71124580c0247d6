// SPDX-License-Identifier: Apache-2.0
// The end of batchnorm.mjs: batchnorm.js stands before it.
/** Instantiates batchnorm.wasm: the one beside this file, or that of a URL, a Response or its bytes; or a module. */
async function load(source = new URL("batchnorm.wasm", import.meta.url)) {
    return instantiate(source);
}
