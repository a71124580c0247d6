// SPDX-License-Identifier: Apache-2.0
// Part of batchnorm.js: what backward has of a forward call.
/** A forward call's saved, with all that it has to have; Call checks what is in it. */
function savedOf(found) {
    if (Object(found) !== found) throw unlike(TypeError, "saved", found, FORWARD_CALLS);
    const saved = { ...found };
    const missing = [...SAVED, "residual"].find((name) => saved[name] === undefined);
    if (missing !== undefined) throw unlike(TypeError, `saved.${missing}`, undefined, FORWARD_CALLS);
    if (!Object.keys(DTYPES).includes(saved.dtype)) throw unlike(TypeError, "saved.dtype", saved.dtype, FORWARD_CALLS);
    return saved;
}

/** A forward call's saved as arguments, by the names that its arrays have there. */
function argumentsOf(saved) {
    const { gamma, beta, mean, invstd, weights, mask, dtype, ...settings } = saved;
    const given = Object.fromEntries(SETTINGS.filter((name) => name in settings).map((name) => [name, settings[name]]));
    if (dtype === "float16" || dtype === "bfloat16") given.dtype = dtype;
    for (const [name, array] of Object.entries({ gamma, beta, mean, invstd, weights, mask })) {
        if (array !== null) given[`saved.${name}`] = array;
    }
    return given;
}

const isSame = (a, b) => a === b || (Number.isNaN(a) && Number.isNaN(b));
const isList = (value) => ArrayBuffer.isView(value) || Array.isArray(value);

/** That what a forward call was told, and backward is given again, is still the same. */
function checkAgain(again, saved) {
    for (const name of SAVED.filter((name) => again[name] !== undefined)) checkSame(name, again[name], saved[name]);
}

function checkSame(name, found, kept) {
    const differ = (what, found, kept) => {
        throw unlike(RangeError, `${name}${what}`, found, `${described(kept)}, which is saved.${name}${what}`);
    };
    if (!isList(found) || !isList(kept)) {
        if (isSame(found, kept)) return;
        if (Object(found) !== found || Object(kept) !== kept || isList(found) || isList(kept)) differ("", found, kept);
        for (const part in found) checkSame(`${name}.${part}`, found[part], kept[part]);
        return;
    }
    if (found[Symbol.toStringTag] !== kept[Symbol.toStringTag]) differ("", found, kept);
    if (found.length !== kept.length) differ(".length", found.length, kept.length);
    const place = Array.prototype.findIndex.call(found, (value, i) => !isSame(value, kept[i]));
    if (place >= 0) differ(`[${place}]`, found[place], kept[place]);
}

/** That x is not what y was written over; x itself may be in another array by now. */
function checkKept(x, saved) {
    const { overwritten } = saved;
    if (!overwritten || x?.buffer !== overwritten.buffer || x.byteOffset !== overwritten.byteOffset) return;
    if (overwritten.byteLength === 0) return;
    throw new RangeError("x is the array that y was written over; expected x as it was, in memory of its own");
}
