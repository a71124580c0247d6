// SPDX-License-Identifier: Apache-2.0
// Part of batchnorm.js: groups of samples, and y at positions without weight.
const MASKED = { normalize: 0, zero: 1, keep: 2 };
const PER_GROUP = { statistics: 1, running: 2, parameters: 4 };
const GROUPS = ["count", "index", "samples", "perGroup", "interleaved", "averaged"];

/** The groups of a call as saved keeps them, with all that was left out; null if there are none. */
function groupsOf(given, samplesOf) {
    if (given === undefined || given === null) return null;
    if (Object(given) !== given || isList(given)) throw unlike(TypeError, "groups", given, "{ count, ... }");
    const { index: indices = null, samples = indices?.length ?? samplesOf, ...others } = given;
    const { count, perGroup = ["statistics"], interleaved = false, averaged = false, ...unknown } = others;
    for (const name in unknown) {
        throw new TypeError(`groups.${name} is no part of groups; expected ${GROUPS.join(", ")}`);
    }
    for (const [name, value] of Object.entries({ count, samples })) {
        if (isWhole(value) && value >= 1 && value <= LARGEST) continue;
        throw unlike(TypeError, `groups.${name}`, value, "a whole number, at least 1");
    }
    for (const [name, value] of Object.entries({ interleaved, averaged })) {
        if (typeof value !== "boolean") throw unlike(TypeError, `groups.${name}`, value, "a boolean");
    }
    const names = Object.keys(PER_GROUP);
    const expected = `an array of ${names.join(", ")}`;
    if (!Array.isArray(perGroup)) throw unlike(TypeError, "groups.perGroup", perGroup, expected);
    const other = perGroup.findIndex((name) => !names.includes(name));
    if (other >= 0) throw unlike(TypeError, `groups.perGroup[${other}]`, perGroup[other], names.join(", "));
    const isIndex = indices === null || indices[Symbol.toStringTag] === "Int32Array";
    if (!isIndex) throw unlike(TypeError, "groups.index", indices, "Int32Array");
    const index = indices && Int32Array.from(indices);
    if (index && index.length !== samples) throw unlike(RangeError, "groups.index.length", index.length, samples);
    return Object.freeze({ count, samples, index, perGroup: Object.freeze([...perGroup]), interleaved, averaged });
}

/** The number of rows that these have: one, or one for each group. */
const rowsOf = (groups, kind) => (groups?.perGroup.includes(kind) ? groups.count : 1);

function maskedOf(masked = "normalize") {
    if (!Object.hasOwn(MASKED, masked)) throw unlike(TypeError, "masked", masked, Object.keys(MASKED).join(", "));
    return masked;
}
