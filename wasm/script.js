// SPDX-License-Identifier: Apache-2.0
// The end of batchnorm.js, within a function: batchnorm.js stands before it.
/** Instantiates batchnorm.wasm, that of a URL, a Response or its bytes; or a module. A script knows no place of its own. */
async function load(source) {
    if ((await source) !== undefined) return instantiate(source);
    throw unlike(TypeError, "source", undefined, "the bytes of batchnorm.wasm, its URL, a Response or a module");
}
