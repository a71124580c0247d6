// SPDX-License-Identifier: Apache-2.0
// A chart on the page: its canvas, which the mouse and the arrow keys read, the sentence of what they read, and its table.

class Figure {
    constructor(chart, page) {
        Object.assign(this, { chart, page });
        this.canvas = element("canvas", { id: `chart-${chart.id}`, role: "slider", tabindex: 0, "aria-valuemin": 0 });
        this.sentence = element("p", { class: "read", "aria-hidden": "true" });
        this.body = element("tbody");
        this.head = element("tr");
        this.details = element("details", {}, element("summary", {}, `Table of “${chart.title}”`),
            element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Table of “${chart.title}”` },
                element("table", { id: `table-${chart.id}` }, element("thead", {}, this.head), this.body)));
        this.details.addEventListener("toggle", () => this.fill());
        const controls = element("div", { class: "row options" }, ...(chart.controls ?? []).map((key) => page.control(key)));
        this.node = element("figure", { class: chart.isWide ? "wide" : "", id: `figure-${chart.id}` },
            element("h3", {}, chart.title), controls, this.canvas, this.sentence, element("figcaption", {}, chart.caption), this.details);
        const { canvas } = this;
        canvas.addEventListener("pointermove", (event) => this.point(event));
        canvas.addEventListener("pointerdown", (event) => this.point(event));
        canvas.addEventListener("pointerleave", () => document.activeElement !== canvas && page.stopReading());
        canvas.addEventListener("focus", () => page.startReading());
        canvas.addEventListener("blur", () => page.stopReading());
        canvas.addEventListener("keydown", (event) => this.key(event));
    }

    point(event) {
        const { view } = this.page;
        const { left, top, width } = this.canvas.getBoundingClientRect();
        const [x, y] = [event.clientX - left, event.clientY - top];
        const found = this.chart.place?.(view, x, y, width) ?? this.placeOnLine(view, x, width);
        this.page.read(found);
    }

    placeOnLine(view, x, width) {
        const { chart } = this;
        const share = (x - 48) / (width - 62);
        const at = chart.starts + share * (chart.last(view) - chart.starts);
        return chart.along === "layer" ? { layer: Math.round(at) - 1 } : { epoch: chart.starts === 0 ? Math.ceil(at) : Math.round(at) };
    }

    key(event) {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        const { view } = this.page;
        const isLayer = this.chart.along === "layer";
        const { epoch, layer } = { epoch: epochAt(view), layer: view.cursor.layer };
        const moves = {
            ArrowLeft: isLayer ? { layer: layer - 1 } : { epoch: epoch - 1 },
            ArrowRight: isLayer ? { layer: layer + 1 } : { epoch: epoch + 1 },
            ArrowUp: { layer: layer - 1 },
            ArrowDown: { layer: layer + 1 },
            Home: isLayer ? { layer: 0 } : { epoch: 1 },
            End: isLayer ? { layer: Infinity } : { epoch: Infinity },
        };
        const move = moves[event.key];
        if (!move || (!isLayer && !this.chart.place && "layer" in move)) return;
        event.preventDefault();
        this.page.read(move);
    }

    draw() {
        const { chart, canvas, page: { view } } = this;
        this.node.hidden = chart.isThere !== undefined && !chart.isThere(view);
        if (this.node.hidden) return;
        this.node.classList.toggle("subject", view.show.some((part) => chart.show.includes(part)));
        const width = canvas.clientWidth;
        const height = chart.heightOf(view, width);
        const ratio = devicePixelRatio || 1;
        const [columns, rows] = [Math.round(width * ratio), Math.round(height * ratio)];
        canvas.style.height = `${height}px`;
        if (canvas.width !== columns || canvas.height !== rows) Object.assign(canvas, { width: columns, height: rows });
        const g = canvas.getContext("2d");
        g.setTransform(ratio, 0, 0, ratio, 0, 0);
        g.clearRect(0, 0, width, height);
        chart.draw(new Pen(g, width, height, this.page.ink), view);
        this.tell();
        if (this.details.open) this.fill();
    }

    tell() {
        const { chart, canvas, sentence, page: { view } } = this;
        const isLayer = chart.along === "layer";
        canvas.setAttribute("aria-label", `${chart.title}: ${chart.name(view)}`);
        canvas.setAttribute("aria-valuemax", isLayer ? chart.last(view) : lastEpoch(view));
        canvas.setAttribute("aria-valuenow", isLayer ? view.cursor.layer + 1 : epochAt(view));
        const read = chart.read(view);
        canvas.setAttribute("aria-valuetext", read);
        sentence.textContent = view.epochs.length > 0 ? `${read[0].toUpperCase()}${read.slice(1)}.` : "";
    }

    fill() {
        if (!this.details.open) return;
        const { head, rows } = this.chart.table(this.page.view);
        this.head.replaceChildren(...head.map((text) => element("th", { scope: "col" }, text)));
        // The CSV has all rows.
        const shown = rows.slice(-400);
        this.body.replaceChildren(...shown.map((cells) => element("tr", {}, ...cells.map(({ text }) => element("td", {}, text)))));
        if (shown.length < rows.length) {
            this.body.prepend(element("tr", {}, element("td", { colspan: head.length }, `the last ${shown.length} of ${rows.length} rows; all are in the CSV`)));
        }
    }
}
