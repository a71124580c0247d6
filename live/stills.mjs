// SPDX-License-Identifier: Apache-2.0
// stills.mjs WASM_FOLDER CACHE: the lessons as HTML, each with a picture of its run with seed 0, drawn by the page's own
// charts. Runs that are in the cache, by a digest of all that made them, are not run again.

import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import vm from "node:vm";

const [wasm, cache] = process.argv.slice(2);
const here = import.meta.dirname;
const source = (names) => names.map((name) => readFileSync(join(here, name), "utf8")).join("\n");
/** Scripts as the page has them, and the names of them that are wanted. */
const scripts = (text, wanted) => vm.runInThisContext(`(() => {"use strict";${text}\nreturn { ${wanted} }; })()`);

const engineText = readFileSync(join(wasm, "batchnorm.js"), "utf8") + source(["network.js", "run.js", "watch.js"]);
const module = readFileSync(join(wasm, "batchnorm.wasm"));
const digits = readFileSync(0); // digits.py's
const engine = scripts(engineText, "batchnorm, Run, LayerWatch, DEFAULTS, BINS, RANGE, LandscapeWatch: typeof LandscapeWatch === 'undefined' ? null : LandscapeWatch");
const viewText = source(process.env.LIVE_VIEW.split(" "));
const view = scripts(viewText, "LESSONS, CHARTS, SETTINGS, Pen, SvgContext, BINS, RANGE, looksOf, percent, runsOf, runsOfLesson, settingsOf, startSettings, hasNorm");

for (const name of ["BINS", "RANGE"]) {
    if (engine[name] !== view[name]) throw new Error(`${name} is ${engine[name]} in watch.js and ${view[name]} in charts/bins.js`);
}
const { placement, firstLayer, ...defaults } = engine.DEFAULTS;
for (const [name, value] of Object.entries(defaults)) {
    const found = view.SETTINGS[name]?.start;
    if (found !== value) throw new Error(`${name} is ${value} in run.js and ${found} in settings.js`);
}

const bn = await engine.batchnorm.load(module);
const data = { labels: new Uint8Array(digits.subarray(0, 1797)), pixels: new Uint8Array(digits.subarray(1797)) };

/** The runs that the page's view has after this lesson. */
function run(lesson) {
    const settings = view.settingsOf(lesson);
    const runs = view.runsOfLesson(lesson, settings);
    const watches = settings.landscape && engine.LandscapeWatch ? [engine.LayerWatch, engine.LandscapeWatch] : [engine.LayerWatch];
    const all = runs.map((each) => new engine.Run(bn, data, each.settings, watches));
    const epochs = Array.from({ length: lesson.epochs }, (_, i) => ({ epoch: i + 1, runs: all.map((each) => each.next() ?? { ended: each.ended }) }));
    const recalibrated = lesson.show.includes("recalibrate") ? [{ epoch: lesson.epochs, runs: all.map((each) => each.recalibrate()) }] : [];
    return {
        names: runs.map(({ name }) => name), settings: runs.map((each) => each.settings), looks: view.looksOf(runs.map((each) => each.settings)),
        epochs, recalibrated, until: lesson.epochs, cursor: { epoch: null, layer: 0 }, options: settings, show: lesson.show,
    };
}

/** The chart that tells the lesson best in a small picture of lines. */
function chartOf({ show }) {
    const order = [["landscape", "along"], ["modes", "accuracy"], ["recalibrate", "accuracy"], ["gradients", "gradient"], ["accuracy", "accuracy"], ["loss", "loss"]];
    return view.CHARTS[(order.find(([part]) => show.includes(part)) ?? ["", "accuracy"])[1]];
}

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");

function article(lesson) {
    const seen = run(lesson);
    const chart = chartOf(lesson);
    const [width, height] = [360, 200];
    const pen = new view.Pen(new view.SvgContext(), width, height, (name) => `var(--${name})`);
    chart.draw(pen, seen);
    const final = seen.names.map((name, i) => {
        const last = seen.epochs.at(-1).runs[i];
        const after = seen.recalibrated[0]?.runs[i];
        const known = last.ended ? "ended" : view.percent(last.accuracy.eval);
        if (!view.hasNorm(seen.settings[i])) return `${name} ${known}`;
        const { batch, sorted } = last.accuracy ?? {};
        const modes = lesson.show.includes("modes") && !after && !last.ended ? `, in training mode ${view.percent(batch)}, sorted by class ${view.percent(sorted)}` : "";
        return `${name} ${known}${after ? `, recalibrated ${view.percent(after.after)}` : ""}${modes}`;
    });
    const title = `${chart.title}: ${chart.name(seen)}`;
    return `<article id="lesson-${lesson.id}">
<h3>${escaped(lesson.title)}</h3>
<p>${escaped(lesson.claim)}</p>
<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${escaped(title)}" font-size="12">${pen.g}</svg>
<p class="hint">${escaped(chart.title)}. Test images known in eval mode after ${lesson.epochs} epochs: ${escaped(final.join("; "))}.</p>
<p class="not"><b>When it is not so.</b> ${escaped(lesson.whenNot)}</p>
<button type="button" data-lesson="${lesson.id}" aria-label="Run this: ${escaped(lesson.title)}" aria-pressed="false">Run this</button>
</article>`;
}

const known = existsSync(cache) ? JSON.parse(readFileSync(cache, "utf8")) : {};
const made = {};
for (const lesson of view.LESSONS) {
    const digest = createHash("sha256").update(engineText).update(viewText.replace(source(["lessons.js"]), "")).update(source(["stills.mjs"]))
        .update(module).update(digits).update(JSON.stringify(lesson)).digest("hex");
    made[digest] = known[digest] ?? article(lesson);
}
writeFileSync(cache, JSON.stringify(made));
console.log(Object.values(made).join("\n"));
