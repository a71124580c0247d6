// SPDX-License-Identifier: Apache-2.0
const css = (n) => getComputedStyle(document.documentElement).getPropertyValue(n).trim();
function pen(id, height) { const c = $(id), w = c.clientWidth, h = height ?? 210, r = devicePixelRatio || 1; c.style.height = h + "px"; if (c.width !== Math.round(w * r) || c.height !== Math.round(h * r)) { c.width = Math.round(w * r); c.height = Math.round(h * r); } const g = c.getContext("2d"); g.setTransform(r, 0, 0, r, 0, 0); g.clearRect(0, 0, w, h); g.font = "12px system-ui, 'DejaVu Sans', sans-serif"; return { g, w, h }; }
function frame(p, x0, x1, y0, y1, yticks, fmt, xlabel) {
    const { g, w, h } = p, L = 46, R = 8, T = 8, B = 30, X = (v) => L + ((v - x0) / (x1 - x0 || 1)) * (w - L - R), Y = (v) => h - B - ((v - y0) / (y1 - y0 || 1)) * (h - T - B);
    g.strokeStyle = css("--grid"); g.fillStyle = css("--muted"); g.lineWidth = 1; g.textAlign = "right"; g.textBaseline = "middle";
    for (const t of yticks) { g.beginPath(); g.moveTo(L, Y(t)); g.lineTo(w - R, Y(t)); g.stroke(); g.fillText(fmt(t), L - 5, Y(t)); }
    g.textAlign = "center"; g.textBaseline = "top";
    const st = Math.max(1, Math.ceil((x1 - x0) / 6)); for (let t = Math.ceil(x0); t <= x1; t += st) g.fillText(t, X(t), h - B + 4);
    g.textAlign = "right"; g.fillText(xlabel, w - R, h - 13);
    return { X, Y };
}
const LOOK = [["--without", [7, 4]], ["--with", []]];
function path(g, pts, colour, dash = [], width = 2.2) { g.strokeStyle = colour; g.setLineDash(dash); g.lineWidth = width; g.beginPath(); let on = false; for (const [x, y] of pts) { if (!Number.isFinite(y)) { on = false; continue; } on ? g.lineTo(x, y) : g.moveTo(x, y); on = true; } g.stroke(); g.setLineDash([]); if (pts.length === 1) { g.fillStyle = colour; g.beginPath(); g.arc(...pts[0], 3, 0, 7); g.fill(); } }
const lg = Math.log10, last = () => epochs.at(-1);
const decades = (a, b) => { const o = [], st = Math.max(1, Math.ceil((b - a) / 5)); for (let d = Math.ceil(a); d <= b; d += st) o.push(d); return o; };
const dec = (d) => (d < -3 || d > 3 ? "1e" + d : String(+(10 ** d).toPrecision(1)));
function draw() {
    const n = Math.max(10, epochs.length);
    { // loss
        const all = epochs.flatMap((e) => e.nets.flatMap((q) => (q.dead ? [] : [q.loss]))).map(lg), lo = Math.min(-1, ...all) - 0.2, hi = Math.max(0.5, ...all) + 0.1, p = pen("loss"), { X, Y } = frame(p, 1, n, lo, hi, decades(lo, hi), dec, "epoch");
        path(p.g, [[X(1), Y(lg(lg(10) * Math.LN10))], [X(n), Y(lg(Math.log(10)))]], css("--muted"), [2, 3], 1); p.g.fillStyle = css("--muted"); p.g.textAlign = "right"; p.g.textBaseline = "bottom"; p.g.fillText("guessing", X(n), Y(lg(Math.log(10))) - 2);
        LOOK.forEach(([c, dash], k) => { const es = epochs.filter((e) => !e.nets[k].dead); p.g.fillStyle = css(c); p.g.globalAlpha = 0.13; p.g.beginPath(); es.forEach((e, i) => p.g[i ? "lineTo" : "moveTo"](X(e.epoch), Y(Math.min(hi, lg(e.nets[k].stepMax))))); [...es].reverse().forEach((e) => p.g.lineTo(X(e.epoch), Y(Math.max(lo, lg(e.nets[k].stepMin + 1e-9))))); p.g.fill(); p.g.globalAlpha = 1; path(p.g, es.map((e) => [X(e.epoch), Y(lg(e.nets[k].loss))]), css(c), dash); const d = epochs.find((e) => e.nets[k].dead); if (d) { p.g.fillStyle = css(c); p.g.textAlign = "left"; p.g.textBaseline = "top"; p.g.font = "bold 15px system-ui"; p.g.fillText("✕ " + (k ? "with" : "without") + " ended", X(Math.min(d.epoch, n * 0.6)), 10 + 18 * k); p.g.font = "12px system-ui"; } });
    }
    { // accuracy
        const p = pen("acc"), { X, Y } = frame(p, 1, n, 0, 1, [0, 0.25, 0.5, 0.75, 1], (t) => Math.round(100 * t) + " %", "epoch");
        LOOK.forEach(([c, dash], k) => path(p.g, epochs.filter((e) => !e.nets[k].dead).map((e) => [X(e.epoch), Y(k && el.wrong.checked ? e.nets[k].accBatch ?? NaN : e.nets[k].acc)]), css(c), dash));
        if (el.wrong.checked) { path(p.g, epochs.filter((e) => !e.nets[1].dead).map((e) => [X(e.epoch), Y(e.nets[1].accSorted ?? NaN)]), css("--with"), [2, 3]); path(p.g, epochs.filter((e) => !e.nets[1].dead).map((e) => [X(e.epoch), Y(e.nets[1].acc)]), css("--with"), [], 0.8); }
        $("acccap").textContent = "448 images that are not trained on, " + (el.wrong.checked ? "with batch norm in training mode: thick, shuffled; dotted, a class at a time; thin, eval mode as it should be." : "in eval mode.");
    }
    { // distributions
        const depth = +el.depth.value, H = Math.max(44, Math.min(90, 420 / depth)), BINS = 80;
        let lo = BINS, hi = 0; for (const e of epochs) for (const q of e.nets) if (!q.dead) for (const h of q.hist) { let s = 0, a = 0; while (a < BINS && (s += h[a]) < 0.005) a++; s = 0; let b = BINS - 1; while (b > 0 && (s += h[b]) < 0.005) b--; lo = Math.min(lo, a); hi = Math.max(hi, b); }
        lo = Math.min(lo, 32); hi = Math.max(hi, 47); const value = (bin) => Math.sinh((bin / BINS) * 16 - 8), binOf = (v) => ((Math.asinh(v) + 8) / 16) * BINS;
        [0, 1].forEach((k) => {
            const p = pen("h" + k, H * depth + 30), { g, w } = p, L = 46, cw = (w - L - 8) / n, ink = css(LOOK[k][0]);
            for (let l = 0; l < depth; l++) {
                const top = l * H, bh = (H - 6) / (hi - lo + 1), Y = (b) => top + (hi + 1 - b) * bh;
                g.fillStyle = css("--bg"); g.fillRect(L, top, w - L - 8, H - 6);
                const qs = [[], [], []];
                epochs.forEach((e, i) => { const q = e.nets[k]; if (q.dead || !q.hist[l]) return; const h = q.hist[l]; let m = 0; for (const v of h) if (v > m) m = v; g.fillStyle = ink; for (let b = lo; b <= hi; b++) if (h[b] > 0) { g.globalAlpha = Math.sqrt(h[b] / m) * 0.85; g.fillRect(L + i * cw, Y(b + 1), cw + 0.3, bh + 0.3); } g.globalAlpha = 1; let s = 0, at = 0; const cut = [0.25, 0.5, 0.75]; for (let b = 0; b < BINS && at < 3; b++) { while (at < 3 && s + h[b] >= cut[at]) { qs[at].push([L + (i + 0.5) * cw, Y(b + (cut[at] - s) / (h[b] || 1))]); at++; } s += h[b]; } });
                qs.forEach((pts, i) => path(g, pts, css("--ink"), [], i === 1 ? 1.8 : 0.9));
                g.fillStyle = css("--muted"); g.textAlign = "right"; g.textBaseline = "middle";
                let prev = 1e9; for (const t of [-100, -10, -1, 0, 1, 10, 100]) { const y = Y(binOf(t)); if (y > top + 4 && y < top + H - 8 && Math.abs(prev - y) > 11) { g.fillText(t, L - 5, y); g.strokeStyle = css("--line"); g.globalAlpha = 0.5; g.lineWidth = 0.7; g.beginPath(); g.moveTo(L, y); g.lineTo(w - 8, y); g.stroke(); g.globalAlpha = 1; prev = y; } }
                g.textAlign = "left"; g.textBaseline = "top"; g.fillStyle = css("--ink"); const q = last()?.nets[k], dead = q && !q.dead ? q.dead_units[l] : 0; g.fillText("layer " + (l + 1) + (dead > 0.005 ? "; " + Math.round(100 * dead) + " % of units " + (el.activation.value === "relu" ? "dead" : "saturated") : ""), L + 5, top + 3);
            }
            g.fillStyle = css("--muted"); g.textAlign = "center"; const st = Math.ceil(n / 6); for (let t = 1; t <= n; t += st) g.fillText(t, L + (t - 0.5) * cw, H * depth); g.textAlign = "right"; g.fillText("epoch", w - 8, H * depth + 14);
        });
    }
    { // gradients
        const q = last(), all = q ? q.nets.flatMap((a) => (a.dead ? [] : a.grad.map((v) => lg(v + 1e-30)))) : [0], lo = Math.max(-12, Math.min(-2, ...all)) - 0.2, hi = Math.max(0, ...all) + 0.2, N = +el.depth.value + 1, p = pen("grad"), { X, Y } = frame(p, 0.8, N + 0.2, lo, hi, decades(lo, hi), dec, "layer");
        if (q) LOOK.forEach(([c, dash], k) => { if (q.nets[k].dead) return; const pts = q.nets[k].grad.map((v, i) => [X(i + 1), Y(Math.max(lo, lg(v + 1e-30)))]); path(p.g, pts, css(c), dash); p.g.fillStyle = css(c); for (const [x, y] of pts) { p.g.beginPath(); k ? p.g.arc(x, y, 4, 0, 7) : p.g.rect(x - 4, y - 4, 8, 8); p.g.fill(); } });
    }
    { // statistics
        const es = epochs.filter((e) => !e.nets[1].dead), pts = es.flatMap((e) => e.nets[1].probe.var.map((v, i, a) => [e.epoch - 1 + (i + 1) / a.length, v, e.nets[1].probe.rvar[i]])), s = pts.flatMap((a) => [a[1], a[2]]).filter((v) => v > 0).map(lg).sort((a, b) => a - b), lo = Math.floor((s[Math.floor(s.length * 0.01)] ?? -1) * 2) / 2 - 0.1, hi = Math.max(lo + 1, Math.ceil((s[Math.floor(s.length * 0.995)] ?? 0) * 2) / 2 + 0.1), p = pen("stat"), { X, Y } = frame(p, 0, n, lo, hi, decades(lo, hi), dec, "epoch");
        p.g.fillStyle = css("--with"); p.g.globalAlpha = 0.45; for (const [x, v] of pts) { const y = Y(lg(v)); if (v > 0 && y > 0 && y < 182) { p.g.beginPath(); p.g.arc(X(x), y, 1.6, 0, 7); p.g.fill(); } } p.g.globalAlpha = 1; path(p.g, pts.map(([x, , r]) => [X(x), Y(lg(r))]), css("--ink"), [], 2);
    }
}
