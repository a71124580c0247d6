// SPDX-License-Identifier: Apache-2.0
// The workers: one that trains what is to be seen, and one that tries learning rates in silence, when it is asked to.

const IMAGES = 1797;
let payloads; // of [wasm, digits, the worker's script], unpacked once

/** A classic worker: a page that was opened from disk can have no other. Resolves when it is ready. */
async function startWorker(told) {
    payloads ??= Promise.all(["wasm", "digits", "worker"].map(payload));
    const [wasm, digits, script] = await payloads;
    const address = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    const worker = new Worker(address);
    return new Promise((resolve, reject) => {
        const failed = (error) => (reject(error), told({ error: error.message }));
        worker.onerror = (event) => failed(new Error(event.message ?? "the worker did not start"));
        worker.onmessage = ({ data }) => {
            if (data.ready) {
                URL.revokeObjectURL(address);
                resolve(worker);
            } else if (data.error) failed(new Error(data.error));
            else told(data);
        };
        worker.postMessage({ boot: { wasm, digits: { labels: digits.slice(0, IMAGES), pixels: digits.slice(IMAGES) } } });
    });
}

const RATES = [0.01, 0.03, 0.1, 0.3, 1, 3];
const TRIAL_EPOCHS = 5;

/** For each of these runs the rate of RATES with the lowest training loss. `told(share)` hears how far it is. */
async function bestRates(runs, told) {
    const trials = runs.flatMap(({ settings }) => RATES.map((rate) => ({ settings: { ...settings, rate }, epochs: TRIAL_EPOCHS })));
    const losses = [];
    let worker;
    await new Promise((resolve, reject) => {
        const hear = (message) => {
            if (message.error) reject(new Error(message.error));
            else if (message.trialsDone) resolve();
            else {
                losses.push(message.ended === null ? message.epochs.at(-1).loss.mean : Infinity);
                told(losses.length / trials.length);
            }
        };
        startWorker(hear).then((started) => {
            worker = started;
            worker.postMessage({ trials: { id: 0, trials } });
        }, reject);
    }).finally(() => worker?.terminate());
    return runs.map((_, i) => {
        const mine = losses.slice(i * RATES.length, (i + 1) * RATES.length);
        return RATES[mine.indexOf(Math.min(...mine))];
    });
}
