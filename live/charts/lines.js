// SPDX-License-Identifier: Apache-2.0
// A chart of lines. Each is made of `series(view)`, from which all else follows, so that the picture, its name, the sentence
// at the cursor, the table and the CSV cannot differ: [{ name, look, points: [{ x, y, low?, high? }], dots?, width? }].
//
// A view is what there is to see: { names, looks, settings (of each run), epochs: [{ epoch, runs }], until, cursor:
// { epoch, layer }, options, recalibrated }; an epoch's runs are as worker.js describes them.

class Lines {
    /**
     * `scale` is a name of SCALES; `along` is what x counts, "epoch" or "layer"; `starts` the first x; `text` writes a
     * value; `guide` is a value with a name, drawn as a thin line.
     */
    constructor(given) {
        Object.assign(this, { scale: "linear", along: "epoch", starts: 1, text: number, guide: null, height: 230, note: () => "" }, given);
    }

    heightOf() {
        return this.height;
    }

    last(view) {
        return this.along === "layer" ? view.settings[0].depth + 1 : Math.max(view.until, this.starts + 1);
    }

    position(view) {
        return this.along === "layer" ? view.cursor.layer + 1 : epochAt(view);
    }

    draw(pen, view) {
        const series = this.series(view);
        const points = series.flatMap((each) => each.points);
        // Half a percent of outliers at each end may leave the picture.
        const values = trimmed(points.flatMap(({ y, low, high }) => [y, low, high]).filter(isNumber));
        if (this.guide && this.scale === "log") values.push(this.guide.value);
        const x = counts(this.starts, this.last(view), pen.width);
        const axes = new Axes(pen, {}, x, SCALES[this.scale](values), this.along);
        axes.grid();
        if (this.guide) {
            const at = axes.Y(this.guide.value);
            pen.path([[axes.left, at], [axes.right, at]], { colour: "muted", width: 1, dash: [2, 3] });
            pen.text(this.guide.name, axes.right, at - 5, { align: "right" });
        }
        for (const { look, points: band } of series) {
            const wide = band.filter(({ low, high }) => isNumber(low) && isNumber(high));
            const edge = (key) => (point) => [axes.X(point.x), axes.Y(point[key])];
            pen.area([...wide.map(edge("high")), ...wide.map(edge("low")).reverse()], look.colour, 0.16);
        }
        for (const each of series) this.#line(pen, axes, each);
        view.epochs.at(-1)?.runs.forEach((run, i) => {
            if (run.ended && this.along === "epoch") {
                pen.text(`✕ ${view.names[i]}: ended`, axes.left + 8, axes.bottom - 8 - 16 * i, { colour: view.looks[i].colour, bold: true });
            }
        });
        if (view.isRead && points.length > 0) axes.cursor(this.position(view));
    }

    #line(pen, axes, { look, points, dots, width = 2.2 }) {
        const places = points.map(({ x, y }) => [axes.X(x), axes.Y(y)]);
        const seen = places.filter(([, y]) => Number.isFinite(y));
        if (dots) {
            pen.g.globalAlpha = 0.6;
            for (const [x, y] of seen) pen.marker(look.marker, x, y, look.colour, 1.7);
            pen.g.globalAlpha = 1;
            return;
        }
        pen.path(places, { ...look, width });
        // Markers: a few, as dense ones hide the line.
        const every = Math.max(1, Math.ceil(seen.length / 8));
        seen.forEach(([x, y], i) => {
            if ((seen.length - 1 - i) % every === 0) pen.marker(look.marker, x, y, look.colour, width > 1 ? 3.6 : 2.4);
        });
    }

    /** The last value of each series up to the cursor. */
    values(view, at = this.position(view)) {
        return this.series(view).map(({ name, points }) => {
            const point = points.findLast(({ x }) => x <= at + 1e-9);
            const isCurrent = point !== undefined && (this.along === "layer" || point.x > at - 1);
            return { name, value: isCurrent ? point.y : null };
        });
    }

    sentence(view, at) {
        const values = this.values(view, at);
        const said = values.map(({ name, value }) => `${name} ${this.text(value)}`);
        return said.length > 0 ? `${this.along} ${whole(at)}: ${said.join("; ")}` : "nothing yet";
    }

    read(view) {
        return this.sentence(view, this.position(view));
    }

    name(view) {
        return this.along === "layer" ? this.nameByLayer(view) : this.sentence(view, lastEpoch(view));
    }

    nameByLayer(view) {
        const said = this.series(view).map(({ name, points }) => `${name} ${points.map(({ y }) => this.text(y)).join(", ")}`);
        return `epoch ${epochAt(view)}, first to last layer: ${said.join("; ")}`;
    }

    table(view) {
        const series = this.series(view);
        const hasBand = series.map(({ points }) => points.some(({ low }) => isNumber(low)));
        const head = [this.along, ...series.flatMap(({ name }, i) => [name, ...(hasBand[i] ? ["smallest", "largest"] : [])])];
        const places = [...new Set(series.flatMap(({ points }) => points.map(({ x }) => x)))].sort((a, b) => a - b);
        const maps = series.map(({ points }) => new Map(points.map((point) => [point.x, point])));
        const rows = places.map((x) => [
            { value: x, text: String(+x.toFixed(2)) },
            ...series.flatMap((_, i) => {
                const { y, low, high } = maps[i].get(x) ?? {};
                return (hasBand[i] ? [y, low, high] : [y]).map((value) => ({ value, text: this.text(value) }));
            }),
        ]);
        return { head, rows };
    }
}

const lastEpoch = (view) => view.epochs.length;
/** The epoch at the cursor: the last one, if the reader did not choose. */
const epochAt = (view) => Math.min(view.cursor.epoch ?? Infinity, lastEpoch(view));

function trimmed(values) {
    const sorted = values.toSorted((a, b) => a - b);
    const cut = Math.floor(sorted.length * 0.005);
    return sorted.slice(cut, sorted.length - cut);
}

/** The points of each run that has any: `value` of an epoch of a run, a number or a point. */
function byRun(view, value, suffix = "") {
    return view.names.map((name, i) => ({
        name: name + suffix,
        look: view.looks[i],
        points: view.epochs.filter(({ runs }) => !runs[i].ended).map(({ epoch, runs }) => {
            const found = value(runs[i]);
            return { x: epoch, ...(found !== null && typeof found === "object" ? found : { y: found }) };
        }),
    }));
}
