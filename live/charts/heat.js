// SPDX-License-Identifier: Apache-2.0
// A number of each layer in each epoch, as a map: layers from first (top) to last, darker is more. One scale for all runs.

class Heat {
    /** `values` gives the numbers of an epoch of a run, layer by layer; `scale` "log" or "share". */
    constructor(given) {
        Object.assign(this, { scale: "log", text: number }, given);
    }

    heightOf(view, width) {
        const { rows, panel } = this.#layout(view, width);
        return rows * panel + 30;
    }

    #layout(view, width) {
        const columns = Math.max(1, Math.min(view.names.length, Math.floor(width / 190)));
        const layers = this.layers(view);
        const layer = Math.max(12, Math.min(30, 170 / layers));
        return { columns, layers, layer, rows: Math.ceil(view.names.length / columns), panel: layers * layer + 58 };
    }

    layers(view) {
        return Math.max(...view.settings.map(({ depth }) => depth)) + (this.hasLast ? 1 : 0);
    }

    draw(pen, view) {
        const layout = this.#layout(view, pen.width);
        const all = view.epochs.flatMap(({ runs }) => runs.flatMap((run) => (run.ended ? [] : [...this.values(run)])));
        const scale = SCALES[this.scale](all);
        const shade = (value) => 0.06 + 0.9 * Math.min(1, Math.max(0, scale.at(value)));
        const width = pen.width / layout.columns;
        view.names.forEach((name, i) => {
            const [left, top] = [(i % layout.columns) * width, Math.floor(i / layout.columns) * layout.panel];
            const [from, to, first] = [left + 26, left + width - 14, top + 22];
            const step = (to - from) / Math.max(view.until, 1);
            const { colour } = view.looks[i];
            pen.text(name, from, top + 14, { colour, bold: true });
            pen.box(from, first, to - from, layout.layers * layout.layer, "bg");
            for (const { epoch, runs } of view.epochs) {
                if (runs[i].ended) continue;
                this.values(runs[i]).forEach((value, layer) => {
                    if (value > 0) pen.box(from + (epoch - 1) * step, first + layer * layout.layer, step + 0.4, layout.layer - 1, colour, shade(value));
                });
            }
            const bottom = first + layout.layers * layout.layer;
            const every = Math.ceil(14 / layout.layer);
            for (let layer = 0; layer < layout.layers; layer += every) {
                pen.text(String(layer + 1), from - 6, first + (layer + 0.5) * layout.layer, { align: "right", base: "middle", bold: view.isRead && view.cursor.layer === layer });
            }
            for (const tick of counts(1, Math.max(view.until, 1), width).ticks) pen.text(String(tick), from + (tick - 0.5) * step, bottom + 14, { align: "center" });
            pen.text("epoch", to, bottom + 28, { align: "right" });
            if (view.isRead && view.epochs.length > 0) {
                const at = from + (epochAt(view) - 0.5) * step;
                pen.path([[at, first], [at, bottom]], { colour: "ink", width: 1, dash: [1, 3] });
            }
        });
        this.#legend(pen, scale, shade, layout.rows * layout.panel + 8);
    }

    #legend(pen, scale, shade, y) {
        const [from, count, size] = [26, 40, 3];
        for (let i = 0; i < count; i++) pen.box(from + i * size, y, size + 0.4, 9, "ink", 0.06 + (0.9 * i) / (count - 1));
        const [low, high] = [scale.ticks[0], scale.ticks.at(-1)];
        if (low === undefined) return;
        const ends = `${scale.text(low)} to ${scale.text(high)}, pale to dark`;
        pen.text(ends, from + count * size + 8, y + 9);
    }

    #said(view, epoch, layers) {
        const runs = view.epochs[epoch - 1]?.runs ?? [];
        const said = view.names.map((name, i) => {
            const values = runs[i] && !runs[i].ended ? [...this.values(runs[i])] : [];
            return `${name} ${layers.map((layer) => this.text(values[layer])).join(", ")}`;
        });
        return said.join("; ");
    }

    name(view) {
        if (view.epochs.length === 0) return "nothing yet";
        const layers = Array.from({ length: this.layers(view) }, (_, layer) => layer);
        return `epoch ${lastEpoch(view)}, first to last layer: ${this.#said(view, lastEpoch(view), layers)}`;
    }

    read(view) {
        if (view.epochs.length === 0) return "nothing yet";
        const layer = Math.min(view.cursor.layer, this.layers(view) - 1);
        return `epoch ${epochAt(view)}, layer ${layer + 1}: ${this.#said(view, epochAt(view), [layer])}`;
    }

    place(view, x, y, width) {
        const { columns, layer, panel } = this.#layout(view, width);
        const one = width / columns;
        return { epoch: Math.ceil((((x % one) - 26) / (one - 40)) * Math.max(view.until, 1)), layer: Math.floor(((y % panel) - 22) / layer) };
    }

    table(view) {
        const head = ["epoch", "layer", ...view.names];
        const rows = view.epochs.flatMap(({ epoch, runs }) =>
            Array.from({ length: this.layers(view) }, (_, layer) => [
                { value: epoch, text: String(epoch) },
                { value: layer + 1, text: String(layer + 1) },
                ...runs.map((run) => (run.ended ? null : this.values(run)[layer])).map((value) => ({ value, text: this.text(value) })),
            ]));
        return { head, rows };
    }
}
