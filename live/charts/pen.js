// SPDX-License-Identifier: Apache-2.0
// Drawing, for canvas and for SVG alike: `g` is a canvas's context, or that of stills.mjs, which writes SVG.

const FONT = "12px system-ui, 'DejaVu Sans', sans-serif";

// A series is told by its colour, its dashes and its marker, so that each may fail.
const LOOKS = {
    without: { colour: "without", dash: [7, 4], marker: "square" },
    with: [
        { colour: "with", dash: [], marker: "circle" },
        { colour: "third", dash: [2, 3], marker: "triangle" },
    ],
};

const hasNorm = ({ placement, firstLayer }) => placement !== "none" || firstLayer;

/** A look for each run, by its settings: orange is without batch norm. */
function looksOf(settings) {
    let used = 0;
    let isTaken = false;
    return settings.map((each) => {
        if (!hasNorm(each) && !isTaken) return (isTaken = true), LOOKS.without;
        return LOOKS.with[used++ % LOOKS.with.length];
    });
}

class Pen {
    /** `ink` gives the colour of a name: without, with, third, ink, muted, grid, panel, bg. */
    constructor(g, width, height, ink) {
        Object.assign(this, { g, width, height, ink });
    }

    text(string, x, y, { colour = "muted", align = "left", base = "alphabetic", bold = false } = {}) {
        const { g } = this;
        g.font = bold ? `600 ${FONT}` : FONT;
        g.fillStyle = this.ink(colour);
        g.textAlign = align;
        g.textBaseline = base;
        g.fillText(string, x, y);
    }

    /** Through the points; a gap where one is not finite. */
    path(points, { colour, dash = [], width = 2.2, alpha = 1 }) {
        const { g } = this;
        g.strokeStyle = this.ink(colour);
        g.lineWidth = width;
        g.globalAlpha = alpha;
        g.setLineDash(dash);
        g.beginPath();
        let isOn = false;
        for (const [x, y] of points) {
            if (!Number.isFinite(y)) isOn = false;
            else {
                if (isOn) g.lineTo(x, y);
                else g.moveTo(x, y);
                isOn = true;
            }
        }
        g.stroke();
        g.setLineDash([]);
        g.globalAlpha = 1;
    }

    area(points, colour, alpha) {
        const { g } = this;
        if (points.length < 3) return;
        g.fillStyle = this.ink(colour);
        g.globalAlpha = alpha;
        g.beginPath();
        points.forEach(([x, y], i) => (i ? g.lineTo(x, y) : g.moveTo(x, y)));
        g.closePath();
        g.fill();
        g.globalAlpha = 1;
    }

    box(x, y, width, height, colour, alpha = 1) {
        const { g } = this;
        g.fillStyle = this.ink(colour);
        g.globalAlpha = alpha;
        g.fillRect(x, y, width, height);
        g.globalAlpha = 1;
    }

    marker(shape, x, y, colour, size = 4) {
        const { g } = this;
        g.fillStyle = this.ink(colour);
        g.beginPath();
        if (shape === "circle") g.arc(x, y, size, 0, 2 * Math.PI);
        else {
            const corners = {
                square: [[-1, -1], [1, -1], [1, 1], [-1, 1]],
                triangle: [[0, -1.3], [1.2, 1], [-1.2, 1]],
                diamond: [[0, -1.4], [1.2, 0], [0, 1.4], [-1.2, 0]],
            }[shape];
            corners.forEach(([i, j], k) => (k ? g.lineTo(x + size * i, y + size * j) : g.moveTo(x + size * i, y + size * j)));
            g.closePath();
        }
        g.fill();
    }
}
