// SPDX-License-Identifier: Apache-2.0
// The worker's messages, as its head has them.
import assert from "node:assert/strict";

import { engine } from "./engine.mjs";

const SMALL = { depth: 1, units: 8 };

/** A worker that was booted, what it has told, and a wait for the message that `isWanted`. */
async function booted(folder) {
    const told = [];
    let wake = () => {};
    const it = await engine(folder, (message) => (told.push(message), wake()));
    await it.told({ boot: { wasm: it.wasm, digits: it.digits } });
    assert.deepEqual(told.splice(0), [{ ready: it.bn.version }]);
    const until = async (isWanted) => {
        while (!told.some(isWanted)) await new Promise((resolve) => (wake = resolve));
        return told.splice(0);
    };
    return { tell: it.told, told, until };
}
const isDone = ({ done }) => done === true;
const numbers = (messages) => messages.filter(({ epoch }) => epoch !== undefined).map(({ epoch }) => epoch);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export const workerTests = {
    "worker: plays to the last epoch": async ({ folder }) => {
        const { tell, until } = await booted(folder);
        tell({ start: { id: "a", runs: [{ ...SMALL, placement: "none" }, SMALL], epochs: 3 } });
        const messages = await until(isDone);
        assert.deepEqual(numbers(messages), [1, 2, 3]);
        assert.ok(messages.every(({ id }) => id === "a"));
        const { runs } = messages[2];
        assert.equal(runs.length, 2);
        for (const run of runs) {
            const parts = ["accuracy", "epoch", "gradients", "layers", "loss", "statistics", "time"];
            assert.deepEqual(Object.keys(run).sort(), parts);
            assert.equal(run.epoch, 3);
            assert.ok(run.time.training > 0 && run.time.training >= run.time.batchNorm);
            structuredClone(run); // as postMessage does
        }
        assert.equal(runs[0].time.batchNorm, 0);
        assert.ok(runs[1].time.batchNorm > 0);
    },

    "worker: steps, plays on, pauses": async ({ folder }) => {
        const { tell, told, until } = await booted(folder);
        tell({ start: { id: 1, runs: [SMALL], epochs: 3, play: false } });
        await pause(50);
        assert.deepEqual(told, []);
        tell({ step: true });
        assert.deepEqual(numbers(told.splice(0)), [1]);
        tell({ play: true, pace: 10_000 });
        tell({ play: false });
        await pause(50);
        assert.deepEqual(numbers(told.splice(0)), [2]);
        tell({ play: true, pace: 0, epochs: 4 });
        assert.deepEqual(numbers(await until(isDone)), [3, 4]);
        // Beyond the last one there is none.
        tell({ step: true });
        assert.deepEqual(told.splice(0), [{ id: 1, done: true }]);
    },

    "worker: a new start ends what was": async ({ folder }) => {
        const { tell, told, until } = await booted(folder);
        tell({ start: { id: 1, runs: [SMALL], epochs: 50, pace: 1 } });
        tell({ start: { id: 2, runs: [SMALL], epochs: 2, landscape: true, play: false } });
        await pause(50);
        assert.deepEqual(told.splice(0).map(({ id, epoch }) => [id, epoch]), [[1, 1]]);
        tell({ play: true });
        const messages = await until(isDone);
        assert.ok(messages.every(({ id }) => id === 2));
        assert.equal(messages[0].runs[0].landscape.loss.length, 6);
    },

    "worker: a run that ends leaves the other one": async ({ folder }) => {
        const { tell, until } = await booted(folder);
        tell({ start: { id: 1, runs: [{ ...SMALL, batch: 1 }, SMALL], epochs: 2 } });
        const messages = await until(isDone);
        assert.deepEqual(numbers(messages), [1, 2]);
        assert.match(messages[1].runs[0].ended, /expected/);
        assert.equal(messages[1].runs[1].epoch, 2);
        tell({ start: { id: 2, runs: [{ ...SMALL, batch: 1 }], epochs: 9 } });
        assert.deepEqual((await until(isDone)).length, 2);
    },

    "worker: recalibrates": async ({ folder }) => {
        const { tell, told } = await booted(folder);
        tell({ start: { id: 7, runs: [{ ...SMALL, bnMomentum: 0.001 }, { ...SMALL, placement: "none" }], epochs: 1 } });
        told.splice(0);
        tell({ recalibrate: true });
        const [{ id, epoch, recalibrated }] = told;
        assert.deepEqual([id, epoch], [7, 1]);
        assert.ok(recalibrated[0].after > recalibrated[0].before);
        assert.equal(recalibrated[1].after, recalibrated[1].before);
    },

    "worker: trials": async ({ folder }) => {
        const { tell, told, until } = await booted(folder);
        const trials = [0.1, 1e6].map((rate) => ({ settings: { depth: 3, placement: "none", rate }, epochs: 2 }));
        tell({ trials: { id: "t", trials: [...trials, { settings: SMALL, epochs: 1, recalibrate: true }] } });
        const messages = [...told.splice(0)];
        assert.deepEqual(messages.map(({ trial }) => trial), [0, 1, 2, undefined]);
        assert.deepEqual(messages[3], { id: "t", trialsDone: true });
        assert.equal(messages[0].epochs.length, 2);
        assert.equal(messages[0].ended, null);
        assert.deepEqual([messages[0].recalibrated, typeof messages[2].recalibrated.after], [null, "number"]);
        assert.match(messages[1].ended, /diverged/);
        // The same as what is told of a run with the same settings.
        tell({ start: { id: 1, runs: [trials[0].settings], epochs: 2 } });
        const last = (await until(isDone)).find(({ epoch }) => epoch === 2);
        assert.deepEqual(messages[0].epochs[1].loss, last.runs[0].loss);
    },

    "worker: what should not happen is told": async ({ folder }) => {
        const { tell, told } = await booted(folder);
        tell({ start: { id: 1, runs: [{ activation: "no such" }], epochs: 1 } });
        tell({ recalibrate: true, start: undefined });
        assert.equal(told.length, 2);
        for (const { error } of told) assert.match(error, /Error/);
        await tell({ boot: { wasm: new Uint8Array(4) } });
        assert.match(told[2].error, /Error/);
    },
};
