// SPDX-License-Identifier: Apache-2.0
// The values that pass through each layer, over the epochs: a row for each layer, a column for each epoch, darker where
// there are more values. The axis is asinh: even near 0, logarithmic far from it. All runs and layers share it; with axes
// of their own they would look alike.

const PLACES = {
    intoNorm: "into batch norm",
    intoActivation: "into the activation",
    out: "out of the layer",
};
const valueAt = (bin) => Math.sinh((bin / BINS) * 2 * RANGE - RANGE);
const binOf = (value) => ((Math.asinh(value) + RANGE) / (2 * RANGE)) * BINS;

/** The values below which these shares lie. */
function quantiles(shares, wanted) {
    const found = [];
    let sum = 0;
    for (let bin = 0; bin < BINS && found.length < wanted.length; bin++) {
        while (found.length < wanted.length && sum + shares[bin] >= wanted[found.length]) {
            found.push(valueAt(bin + (wanted[found.length] - sum) / (shares[bin] || 1)));
        }
        sum += shares[bin];
    }
    while (found.length < wanted.length) found.push(valueAt(BINS));
    return found;
}
const QUARTERS = [0.25, 0.5, 0.75];

class Distributions {
    heightOf(view, width) {
        const { columns, rows, panel } = this.#layout(view, width);
        return rows * panel + (columns > 0 ? 0 : 0);
    }

    #layout({ settings }, width) {
        const columns = Math.max(1, Math.min(settings.length, Math.floor(width / 280)));
        const rows = Math.ceil(settings.length / columns);
        const depth = Math.max(...settings.map((each) => each.depth));
        const layer = Math.max(30, Math.min(84, 460 / depth));
        return { columns, rows, layer, depth, panel: depth * layer + 62 };
    }

    /** The histogram that is asked for; of a layer without batch norm, what its activation is given stands in. */
    shares(view, run, layer) {
        const { place, unit } = view.options;
        const seen = run.layers[layer]?.[place] ?? run.layers[layer]?.intoActivation;
        if (!seen) return null;
        const single = Math.min(unit, seen.single.length / BINS);
        return single > 0 ? seen.single.subarray((single - 1) * BINS, single * BINS) : seen.all;
    }

    draw(pen, view) {
        const layout = this.#layout(view, pen.width);
        const range = this.#range(view);
        view.names.forEach((name, i) => {
            const width = pen.width / layout.columns;
            const [column, row] = [i % layout.columns, Math.floor(i / layout.columns)];
            this.#panel(pen, view, i, { left: column * width, top: row * layout.panel, width, ...layout, range });
        });
    }

    /** The bins that hold all but half a percent at each end, of any layer and epoch. */
    #range(view) {
        let [low, high] = [BINS / 2 - 8, BINS / 2 + 8];
        for (const { runs } of view.epochs) {
            for (const run of runs) {
                for (let layer = 0; !run.ended && layer < run.layers.length; layer++) {
                    const shares = this.shares(view, run, layer);
                    let [sum, a, b] = [0, 0, BINS - 1];
                    while (a < low && (sum += shares[a]) < 0.005) a++;
                    sum = 0;
                    while (b > high && (sum += shares[b]) < 0.005) b--;
                    [low, high] = [Math.min(low, a), Math.max(high, b)];
                }
            }
        }
        return { low, high: high + 1 };
    }

    #panel(pen, view, i, { left, top, width, layer: height, range: { low, high } }) {
        const { colour } = view.looks[i];
        const [from, to] = [left + 48, left + width - 14];
        const last = Math.max(view.until, 1);
        const step = (to - from) / last;
        pen.text(view.names[i], from, top + 14, { colour, bold: true });
        for (let layer = 0; layer < view.settings[i].depth; layer++) {
            const [y0, y1] = [top + 22 + layer * height, top + 22 + (layer + 1) * height - 5];
            const Y = (bin) => y1 - ((bin - low) / (high - low)) * (y1 - y0);
            pen.box(from, y0, to - from, y1 - y0, "bg");
            const quarters = QUARTERS.map(() => []);
            for (const { epoch, runs } of view.epochs) {
                if (runs[i].ended) continue;
                const shares = this.shares(view, runs[i], layer);
                const most = shares.reduce((a, b) => Math.max(a, b), 0) || 1;
                for (let bin = low; bin < high; bin++) {
                    if (shares[bin] > 0) {
                        const place = [from + (epoch - 1) * step, Y(bin + 1), step + 0.4, Y(bin) - Y(bin + 1) + 0.4];
                        pen.box(...place, colour, 0.88 * Math.sqrt(shares[bin] / most));
                    }
                }
                quantiles(shares, QUARTERS).forEach((value, k) => {
                    const at = Math.min(y1, Math.max(y0, Y(binOf(value))));
                    quarters[k].push([from + (epoch - 1) * step, at], [from + epoch * step, at]);
                });
            }
            quarters.forEach((points, k) => pen.path(points, { colour: "ink", width: k === 1 ? 1.8 : 0.9 }));
            this.#values(pen, Y, y0, y1, from, to);
            pen.text(String(layer + 1), left + 2, (y0 + y1) / 2, { base: "middle", bold: view.isRead && view.cursor.layer === layer });
        }
        const bottom = top + 22 + view.settings[i].depth * height;
        const x = counts(1, last, width);
        for (const tick of x.ticks) pen.text(String(tick), from + (tick - 0.5) * step, bottom + 12, { align: "center" });
        pen.text("epoch", to, bottom + 27, { align: "right" });
        if (view.isRead && view.epochs.length > 0) {
            const at = from + (epochAt(view) - 0.5) * step;
            pen.path([[at, top + 22], [at, bottom - 5]], { colour: "ink", width: 1, dash: [1, 3] });
        }
    }

    #values(pen, Y, y0, y1, from, to) {
        let before = Infinity;
        for (const value of [-1000, -100, -10, -1, 0, 1, 10, 100, 1000]) {
            const y = Y(binOf(value));
            if (y < y0 + 5 || y > y1 - 4 || before - y < 12) continue;
            before = y;
            pen.text(String(value), from - 6, y, { align: "right", base: "middle" });
            pen.path([[from, y], [to, y]], { colour: "muted", width: 0.6, alpha: 0.5 });
        }
    }

    /** [{ name, quarters }] of a layer in an epoch. */
    #at(view, epoch, layer) {
        const runs = view.epochs[epoch - 1]?.runs ?? [];
        return view.names.map((name, i) => {
            const shares = runs[i] && !runs[i].ended ? this.shares(view, runs[i], layer) : null;
            return { name, quarters: shares ? quantiles(shares, QUARTERS) : null };
        });
    }

    #said(view, epoch, layer) {
        const said = this.#at(view, epoch, layer).map(({ name, quarters }) =>
            `${name}: ${quarters ? `half of the values from ${number(quarters[0])} to ${number(quarters[2])}, median ${number(quarters[1])}` : "none"}`);
        return `epoch ${epoch}, layer ${layer + 1}, ${said.join("; ")}`;
    }

    name(view) {
        if (view.epochs.length === 0) return "nothing yet";
        return `values ${PLACES[view.options.place]}, ${this.#said(view, lastEpoch(view), view.settings[0].depth - 1)}`;
    }

    read(view) {
        return view.epochs.length === 0 ? "nothing yet" : this.#said(view, epochAt(view), view.cursor.layer);
    }

    place(view, x, y, width) {
        const { columns, layer, panel, depth } = this.#layout(view, width);
        const one = width / columns;
        const share = ((x % one) - 48) / (one - 62);
        return {
            epoch: Math.ceil(share * Math.max(view.until, 1)),
            layer: Math.floor(((y % panel) - 22) / layer),
            depth,
        };
    }

    table(view) {
        const head = ["epoch", "layer", ...view.names.flatMap((name) => [`${name}: lower quartile`, "median", "upper quartile"])];
        const rows = view.epochs.flatMap(({ epoch }) =>
            Array.from({ length: Math.max(...view.settings.map(({ depth }) => depth)) }, (_, layer) => [
                { value: epoch, text: String(epoch) },
                { value: layer + 1, text: String(layer + 1) },
                ...this.#at(view, epoch, layer).flatMap(({ quarters }) =>
                    (quarters ?? [null, null, null]).map((value) => ({ value, text: number(value) }))),
            ]));
        return { head, rows };
    }
}
