// SPDX-License-Identifier: Apache-2.0
// As much of a canvas's context as the pen needs, writing SVG: for the stills, and for the key beside the charts.

const place = (value) => String(Math.round(10 * value) / 10);

class SvgContext {
    parts = [];
    texts = [];
    globalAlpha = 1;
    dash = [];
    lineWidth = 1;

    setLineDash(dash) {
        this.dash = dash;
    }

    beginPath() {
        this.path = "";
    }

    moveTo(x, y) {
        this.path += `M${place(x)} ${place(y)}`;
    }

    lineTo(x, y) {
        this.path += `L${place(x)} ${place(y)}`;
    }

    /** Whole circles only. */
    arc(x, y, radius) {
        const r = place(radius);
        this.path += `M${place(x - radius)} ${place(y)}a${r} ${r} 0 1 0 ${place(2 * radius)} 0a${r} ${r} 0 1 0 ${place(-2 * radius)} 0`;
    }

    closePath() {
        this.path += "Z";
    }

    #add(path, attributes) {
        const alpha = this.globalAlpha < 1 ? ` opacity="${place(this.globalAlpha)}"` : "";
        const last = this.parts.at(-1);
        // Paths that look the same become one, unless they are half transparent and would lie upon each other.
        if (alpha === "" && last?.attributes === attributes) last.path += path;
        else if (path !== "") this.parts.push({ path, attributes: attributes + alpha });
    }

    stroke() {
        const dash = this.dash.length > 0 ? ` stroke-dasharray="${this.dash.join(" ")}"` : "";
        this.#add(this.path, `fill="none" stroke="${this.strokeStyle}" stroke-width="${this.lineWidth}"${dash}`);
    }

    fill() {
        this.#add(this.path, `fill="${this.fillStyle}"`);
    }

    fillRect(x, y, width, height) {
        this.#add(`M${place(x)} ${place(y)}h${place(width)}v${place(height)}h${place(-width)}Z`, `fill="${this.fillStyle}"`);
    }

    /** Above all paths. */
    fillText(text, x, y) {
        const anchor = { left: "", center: ' text-anchor="middle"', right: ' text-anchor="end"' }[this.textAlign];
        const down = this.textBaseline === "middle" ? 4 : 0;
        const escaped = text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
        const weight = this.font.startsWith("600") ? ' font-weight="600"' : "";
        // style.css makes texts muted.
        const fill = this.fillStyle === "var(--muted)" ? "" : ` fill="${this.fillStyle}"`;
        this.texts.push(`<text x="${place(x)}" y="${place(y + down)}"${anchor}${fill}${weight}>${escaped}</text>`);
    }

    toString() {
        return [...this.parts.map(({ path, attributes }) => `<path d="${path}" ${attributes}/>`), ...this.texts].join("");
    }
}
