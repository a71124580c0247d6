// SPDX-License-Identifier: Apache-2.0
// From values to places, and their ticks; and numbers as text.

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** Three digits, in words that fit beside an axis and in a sentence. */
function number(value) {
    if (!isNumber(value)) return "–";
    if (value === 0) return "0";
    const rounded = +value.toPrecision(3); // a tick at 10 ** -4 is a little below 1e-4
    const size = Math.abs(rounded);
    if (size >= 1e5 || size < 1e-4) return value.toExponential(1).replace("e+", "e");
    return String(rounded);
}
const percent = (value) => (isNumber(value) ? `${(100 * value).toFixed(1)} %` : "–");
const whole = (value) => (isNumber(value) ? String(Math.round(value)) : "–");

/** Ticks of even steps, at most `count` of them. */
function steps(low, high, count) {
    const rough = (high - low) / count || 1;
    const ten = 10 ** Math.floor(Math.log10(rough));
    const step = ten * [1, 2, 5, 10].find((each) => each * ten >= rough * 0.999);
    const ticks = [];
    for (let t = Math.ceil(low / step - 1e-9); t * step <= high + 1e-9 * step; t++) ticks.push(t * step);
    return ticks;
}

/** A scale gives the place of a value, 0 at its low end and 1 at its high one. */
const SCALES = {
    linear(values) {
        let [low, high] = [Math.min(...values, Infinity), Math.max(...values, -Infinity)];
        if (!(low <= high)) [low, high] = [0, 1];
        const pad = (high - low) * 0.06 || 0.5;
        [low, high] = [low - pad, high + pad];
        return { at: (v) => (v - low) / (high - low), ticks: steps(low, high, 5), text: number };
    },
    share() {
        return { at: (v) => (v + 0.02) / 1.05, ticks: [0, 0.25, 0.5, 0.75, 1], text: (v) => `${Math.round(100 * v)} %` };
    },
    /** A value below the low end lies on that end: 0 has no logarithm. */
    log(values) {
        const logs = values.filter((v) => v > 0).map(Math.log10);
        let [low, high] = [Math.min(...logs, Infinity), Math.max(...logs, -Infinity)];
        if (!(low <= high)) [low, high] = [-1, 0];
        low = Math.max(low, high - 15);
        if (high - low < 1) [low, high] = [(low + high - 1) / 2, (low + high + 1) / 2];
        const pad = 0.05 * (high - low);
        [low, high] = [low - pad, high + pad];
        const every = Math.max(1, Math.ceil((high - low) / 5));
        const ticks = [];
        for (let d = Math.ceil(low); d <= high; d++) {
            if (d % every === 0) ticks.push(10 ** d);
            if (high - low < 1.7) ticks.push(...[2, 5].map((k) => k * 10 ** d), ...[2, 5].map((k) => k * 10 ** (d - 1)));
        }
        const inside = [...new Set(ticks)].filter((t) => Math.log10(t) >= low && Math.log10(t) <= high);
        return { at: (v) => (Math.max(v > 0 ? Math.log10(v) : low, low) - low) / (high - low), ticks: inside, text: number };
    },
};

/** Epochs or layers, from first to last. */
function counts(first, last, width) {
    const every = Math.max(1, Math.ceil((last - first) / Math.max(2, Math.floor(width / 60))));
    const ticks = [];
    for (let t = Math.ceil(first); t <= last; t += every) ticks.push(t);
    return { at: (v) => (v - first) / (last - first || 1), ticks, text: String };
}

/** The axes around a part of the pen: places in it, and grid lines with their numbers. */
class Axes {
    constructor(pen, { left = 0, top = 0, width = pen.width, height = pen.height }, x, y, xName) {
        const inset = { left: 48, right: 14, top: 8, bottom: 32 };
        Object.assign(this, { pen, x, y, xName });
        this.left = left + inset.left;
        this.right = left + width - inset.right;
        this.top = top + inset.top;
        this.bottom = top + height - inset.bottom;
    }

    X(value) {
        return this.left + this.x.at(value) * (this.right - this.left);
    }

    Y(value) {
        if (!isNumber(value)) return NaN;
        return this.bottom - Math.min(1, Math.max(0, this.y.at(value))) * (this.bottom - this.top);
    }

    grid() {
        const { pen, x, y, left, right, bottom } = this;
        for (const tick of y.ticks) {
            pen.path([[left, this.Y(tick)], [right, this.Y(tick)]], { colour: "grid", width: 1 });
            pen.text(y.text(tick), left - 6, this.Y(tick), { align: "right", base: "middle" });
        }
        for (const tick of x.ticks) pen.text(x.text(tick), this.X(tick), bottom + 15, { align: "center" });
        pen.text(this.xName, right, bottom + 29, { align: "right" });
    }

    /** A line where the reader is. */
    cursor(value) {
        this.pen.path([[this.X(value), this.top], [this.X(value), this.bottom]], { colour: "ink", width: 1, dash: [1, 3] });
    }
}
