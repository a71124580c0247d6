// SPDX-License-Identifier: Apache-2.0
const $ = (id) => document.getElementById(id), form = $("form"), el = form.elements;
const MAXE = 60;
const show = { rate: (v) => +(10 ** v).toPrecision(2), batch: (v) => 2 ** v, depth: Number, init: (v) => +(10 ** v).toPrecision(2), momentum: (v) => +(10 ** v).toPrecision(2) };
const runsOf = () => {
    const first = el.placement.value === "input";
    const all = { rate: 10 ** el.rate.value, batch: 2 ** el.batch.value, depth: +el.depth.value, weightScale: 10 ** el.init.value, bnMomentum: 10 ** el.momentum.value, activation: el.activation.value, pixels: el.input.value, seed: +el.seed.value };
    return [{ ...all, placement: "none" }, { ...all, placement: first ? "none" : el.placement.value, firstLayer: first }];
};
// The shape that the charts were drawn from before.
const seen = (run) => (run.ended ? { dead: run.ended } : { loss: run.loss.mean, stepMin: run.loss.smallest, stepMax: run.loss.largest, acc: run.accuracy.eval, accBatch: run.accuracy.batch, accSorted: run.accuracy.sorted, ms: run.time.training, bnMs: run.time.batchNorm, hist: run.layers.map((l) => l.intoActivation.all), dead_units: run.layers.map((l) => l.dead), grad: [...run.gradients], probe: lastNorm(run.statistics) });
const lastNorm = ({ norms }) => { const q = norms.at(-1); return q ? { var: sampled(q, q.batchVar), rvar: sampled(q, q.runningVar) } : { var: [], rvar: [] }; };
const sampled = (q, values) => [...values].filter((_, i) => i % q.channels === 0);
const D0 = { rate: "-1", batch: "6", depth: "5", init: "0", momentum: "-1", activation: "relu", placement: "before", input: "scaled", wrong: false, pace: "0", seed: "0" };
const SLIDERS = { rate: Math.log10, batch: Math.log2, depth: Number, init: Math.log10, momentum: Math.log10 };
const NAMES = { rate: "rate", batch: "batch", depth: "depth", weightScale: "init", bnMomentum: "momentum", activation: "activation", seed: "seed" };
const changeOf = (s) => Object.fromEntries([...Object.entries(s).filter(([k]) => NAMES[k]).map(([k, v]) => [NAMES[k], (SLIDERS[NAMES[k]] ?? String)(v)]), ["input", s.pixels ?? "scaled"], ["placement", s.firstLayer ? "input" : s.placement ?? "before"]]);
LESSONS.map((l) => [l.title, { ...changeOf(l.runs[1].settings), wrong: l.show.includes("modes") }, l.claim]).forEach(([name, change, text]) => { const b = document.createElement("button"); b.type = "button"; b.textContent = name; b.setAttribute("aria-pressed", "false"); b.onclick = () => { for (const o of $("lessons").children) o.setAttribute("aria-pressed", o === b); apply({ ...D0, ...change }); $("lesson").textContent = text; restart(true); }; $("lessons").append(b); });
function apply(v) { for (const [k, x] of Object.entries(v)) if (el[k]) { if (el[k].type === "checkbox") el[k].checked = x === true || x === "true"; else el[k].value = x; } label(); }
function label() { for (const [k, f] of Object.entries(show)) el[k].closest("label").querySelector("output").textContent = f(el[k].value); for (const k of Object.keys(show)) el[k].setAttribute("aria-valuetext", show[k](el[k].value)); }
const hash = () => new URLSearchParams(Object.keys(D0).filter((k) => String(val(k)) !== String(D0[k])).map((k) => [k, val(k)])).toString();
const val = (k) => (el[k].type === "checkbox" ? el[k].checked : el[k].value);

let epochs = [], playing = false, fresh = true, busy = 0, t0 = 0, worker, wakeup;
const pc = (v) => (v == null ? "–" : (100 * v).toFixed(1) + " %");
function tell() {
    const e = last(); if (!e) { $("says").textContent = ""; return; }
    const [a, b] = e.nets, line = (q, name) => (q.dead ? name + ": " + q.dead : `${name}: loss ${q.loss.toPrecision(2)}, test accuracy ${pc(q.acc)}`);
    $("says").textContent = `Epoch ${e.epoch}. ${line(a, "Without")}. ${line(b, "With")}.` + (el.wrong.checked && b.accBatch != null ? ` In training mode ${pc(b.accBatch)}, and ${pc(b.accSorted)} if the images come by class.` : "");
    const N = (f) => [a, b].map((q, k) => (k ? "with: " : "without: ") + (q.dead ? "ended" : f(q))).join("; "); for (const [id, text] of [["loss", "Training loss, epoch " + e.epoch + "; " + N((q) => q.loss.toPrecision(2))], ["acc", "Test accuracy; " + N((q) => pc(q.acc))], ["h0", "Values that each activation is given, without batch norm"], ["h1", "Values that each activation is given, with batch norm"], ["grad", "Gradient norms, first to last layer; " + N((q) => q.grad.map((v) => v.toPrecision(1)).join(", "))], ["stat", "Variance of the last batches; running " + (b.dead ? "" : b.probe.rvar.at(-1).toPrecision(2))]]) $(id).setAttribute("aria-label", text);
    const r = $("table").tBodies[0].insertRow(0); for (const v of [e.epoch, a.loss?.toPrecision(3), b.loss?.toPrecision(3), pc(a.acc), pc(b.acc), pc(b.accBatch), pc(b.accSorted)]) r.insertCell().textContent = v ?? "–";
}
let pending = false; const redraw = () => { if (!pending) { pending = true; requestAnimationFrame(() => { pending = false; draw(); }); } };
function got({ data: m }) {
    if (m.error) { $("status").textContent = m.error; $("status").className = "warn"; return; }
    if (m.ready) { window.ready = true; return boot(); }
    if (m.id !== started) return;
    if (m.done) { setPlaying(false); return; }
    epochs.push({ epoch: m.epoch, nets: m.runs.map(seen) }); tell(); redraw();
    const live = last().nets.filter((q) => !q.dead), ms = live.reduce((s, q) => s + q.ms, 0), bms = live.reduce((s, q) => s + q.bnMs, 0), wall = (performance.now() - t0) / 1000;
    $("status").textContent = `${(epochs.length / wall).toFixed(1)} epochs/s; ${ms.toFixed(0)} ms of training an epoch, of which batch norm ${bms.toFixed(0)} ms`;
    (window.timing ??= []).push([ms, bms, performance.now()]);
}
function setPlaying(on) { playing = on; $("play").textContent = on ? "Pause" : "Train"; }
let started = 0;
function send(m) { if (fresh) worker.postMessage({ start: { id: ++started, runs: runsOf(), epochs: MAXE, pace: +el.pace.value, play: false } }); fresh = false; worker.postMessage(m); }
function play() { if (epochs.length >= MAXE) reset(); setPlaying(true); t0 = performance.now(); send({ play: true, pace: +el.pace.value }); }
function pause() { setPlaying(false); worker.postMessage({ play: false }); }
function reset() { if (playing) pause(); epochs = []; fresh = true; $("table").tBodies[0].replaceChildren(); $("says").textContent = ""; redraw(); }
function restart(go) { reset(); history.replaceState(null, "", "#" + hash()); setTimeout(() => { epochs = []; $("table").tBodies[0].replaceChildren(); if (go) play(); }, 120); }
function boot() { apply({ ...D0, ...Object.fromEntries(new URLSearchParams(location.hash.slice(1))) }); draw(); if (!matchMedia("(prefers-reduced-motion: reduce)").matches || location.hash) play(); }
$("play").onclick = () => (playing ? pause() : play()); $("step").onclick = () => { if (playing) pause(); send({ step: true }); }; $("reset").onclick = () => restart(false);
form.addEventListener("input", (e) => { label(); if (["wrong"].includes(e.target.name)) return redraw(); if (e.target.name === "pace") { if (playing) play(); return; } clearTimeout(wakeup); wakeup = setTimeout(() => restart(true), 250); });
addEventListener("keydown", (e) => { if (e.ctrlKey || e.metaKey || e.altKey || /SELECT|BUTTON|SUMMARY/.test(e.target.tagName) || (e.target.tagName === "INPUT" && e.target.type === "checkbox")) return; if (e.key === " ") { e.preventDefault(); $("play").click(); } else if (e.key === ".") $("step").click(); else if (e.key === "r" || e.key === "R") $("reset").click(); });
addEventListener("resize", redraw); matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
$("csv").onclick = () => { const rows = ["epoch,loss_without,loss_with,accuracy_without,accuracy_with,accuracy_with_training_mode,accuracy_with_by_class", ...epochs.map((e) => [e.epoch, e.nets[0].loss, e.nets[1].loss, e.nets[0].acc, e.nets[1].acc, e.nets[1].accBatch, e.nets[1].accSorted].map((v) => v ?? "").join(","))]; const a = document.createElement("a"); a.href = URL.createObjectURL(new Blob([rows.join("\n") + "\n"], { type: "text/csv" })); a.download = "batchnorm.csv"; a.click(); };
$("link").onclick = () => navigator.clipboard?.writeText(location.href.split("#")[0] + "#" + hash());
label();
const bytes = async (id) => new Uint8Array(await new Response(new Blob([Uint8Array.from(atob($(id).textContent), (c) => c.charCodeAt(0))]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
(async () => {
    const [wasm, d] = await Promise.all([bytes("wasm"), bytes("digits")]);
    worker = new Worker(URL.createObjectURL(new Blob([$("worker").textContent], { type: "text/javascript" })));
    worker.onmessage = got; worker.onerror = (e) => { $("status").textContent = "worker: " + (e.message ?? e.type); };
    worker.postMessage({ boot: { wasm, digits: { labels: d.slice(0, 1797), pixels: d.slice(1797) } } });
})();
