// SPDX-License-Identifier: Apache-2.0
// Every lesson's claim holds for seeds 0 to 4, and does not where its ablation says so. Two threads share the seeds.
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";

import { engine, train } from "./engine.mjs";

const SEEDS = [0, 1, 2, 3, 4];
const THREADS = 2;

/** Runs a lesson with a seed, and returns what is wrong, or null. */
function check(it, lesson, seed) {
    const watches = [
        ...(lesson.show.includes("gradients") ? [it.LayerWatch] : []),
        ...(lesson.show.includes("landscape") ? [it.LandscapeWatch] : []),
    ];
    const results = (runs) => runs.map(({ settings }) => train(it, { ...settings, seed }, lesson.epochs, watches));
    const told = (found) => found.map((run) => run.ended ?? JSON.stringify(run.epochs.at(-1).accuracy)).join("; ");
    const found = results(lesson.runs);
    if (lesson.holds(found) !== true) return `does not hold: ${told(found)}`;
    const ablated = results(lesson.ablation.runs);
    return lesson.holds(ablated) === false ? null : `holds without what it is about, too: ${told(ablated)}`;
}

if (!isMainThread) {
    const it = await engine(new URL(workerData));
    parentPort.on("message", ({ number, seed }) => {
        parentPort.postMessage({ number, seed, fault: check(it, it.LESSONS[number], seed) });
    });
    parentPort.postMessage(null);
}

/** A test for each lesson and seed, as [name, promise of nothing]. */
export async function lessonTests(folder) {
    const { LESSONS } = await engine(folder);
    const tasks = LESSONS.flatMap((_, number) => SEEDS.map((seed) => ({ number, seed })));
    // The longest first, so that both threads end together.
    tasks.sort((a, b) => LESSONS[b.number].epochs - LESSONS[a.number].epochs);
    const faults = [];
    const work = () =>
        new Promise((resolve, reject) => {
            const worker = new Worker(new URL(import.meta.url), { workerData: folder.href });
            const next = () => (tasks.length > 0 ? worker.postMessage(tasks.shift()) : resolve(worker.terminate()));
            worker.on("error", reject);
            worker.on("message", (found) => {
                if (found !== null) faults.push(found);
                next();
            });
        });
    await Promise.all(Array.from({ length: THREADS }, work));
    return faults.map(({ number, seed, fault }) => ({ name: `lesson ${LESSONS[number].id}, seed ${seed}`, fault }));
}
