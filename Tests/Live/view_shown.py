# SPDX-License-Identifier: Apache-2.0
"""The charts, tables and sentences: that they show what was measured."""

from __future__ import annotations

import itertools

from browsers import Browser
from harness import SMALL, STATE, both, click, open_page, table, text, written


@both
def every_chart_is_drawn_in_the_colours_of_its_runs(b: Browser) -> None:
    open_page(b, f"{SMALL}&landscape=true")
    b.js("new Promise(requestAnimationFrame)")
    found = b.js(
        """CHART_NAMES.map((id) => {
        const canvas = document.getElementById('chart-' + id);
        const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        const near = { without: 0, with: 0 };
        for (const name of Object.keys(near)) {
            const wanted = [1, 3, 5].map((i) => parseInt(page.colours[name].slice(i, i + 2), 16));
            for (let i = 0; i < pixels.length; i += 4) {
                if (pixels[i + 3] > 100 && wanted.every((value, k) => Math.abs(value - pixels[i + k]) < 24)) {
                    near[name]++;
                }
            }
        }
        return [id, canvas.clientHeight, near];
    })""".replace("CHART_NAMES", "Object.keys(CHARTS)")
    )
    assert len(found) >= 8
    for name, height, near in found:
        assert height > 60, (name, height, near)
        assert near["with"] > 20, (name, height, near)
        assert near["without"] > 20 or name in ("mean", "variance"), (name, near)
    last = b.js(
        "LESSONS.some(lesson => lesson.show.includes('landscape')) && page.view.epochs.at(-1).runs[1].landscape"
    )
    assert last is False or len(last["at"]) > 0


@both
def a_line_is_where_its_value_is(b: Browser) -> None:
    """Looks at the pixels: nothing is blue below 50 %, if the accuracy with batch norm is above; and the reverse."""
    open_page(b, "lesson=rates")
    b.js("new Promise(requestAnimationFrame)")
    rows = b.js("""(() => {
        const canvas = document.getElementById('chart-accuracy');
        const { width, height } = canvas, pixels = canvas.getContext('2d').getImageData(0, 0, width, height).data;
        const found = {};
        for (const name of ['without', 'with']) {
            const wanted = [1, 3, 5].map((i) => parseInt(page.colours[name].slice(i, i + 2), 16));
            const rows = [];
            for (let i = 0; i < pixels.length; i += 4) {
                if (pixels[i + 3] > 200 && wanted.every((value, k) => Math.abs(value - pixels[i + k]) < 12)) {
                    rows.push(Math.floor(i / 4 / width) / height);
                }
            }
            found[name] = [Math.min(...rows), Math.max(...rows)];
        }
        return found;
    })()""")
    assert rows["with"][1] < 0.4 < 0.6 < rows["without"][0], rows


@both
def the_csv_has_what_the_tables_show(b: Browser) -> None:
    open_page(b, f"{SMALL}&modes=true")
    rows = written(b)
    assert list(rows[0]) == ["run", "epoch", "what", "layer", "index", "value"]
    known = {(r["run"], r["epoch"], r["what"], r["layer"]): float(r["value"]) for r in rows if r["index"] == ""}
    names = ("without batch norm", "with batch norm")

    def same(shown: str, run: str, epoch: str, what: str, layer: str = "") -> None:
        value = known[run, epoch, what, layer]
        if shown.endswith("%"):
            assert abs(float(shown[:-2]) - 100 * value) < 0.0501, (shown, value, what)
        else:
            assert abs(float(shown) - value) <= 0.006 * abs(value), (shown, value, what)

    compared = 0
    for epoch, *cells in table(b, "loss")[1:]:
        for shown, (run, kind) in zip(cells, itertools.product(names, ("mean", "smallest", "largest"))):
            same(shown, run, epoch, f"loss {kind}")
            compared += 1
    for epoch, *cells in table(b, "accuracy")[1:]:
        assert len(cells) == 4
        same(cells[0], names[0], epoch, "accuracy eval")
        for shown, kind in zip(cells[1:], ("eval", "batch", "sorted")):
            same(shown, names[1], epoch, f"accuracy {kind}")
            compared += 1
    for chart, what in (("gradients", "gradient"), ("dead", "dead")):
        for epoch, layer, *cells in table(b, chart)[1:]:
            for shown, run in zip(cells, names):
                same(shown, run, epoch, what, layer)
                compared += 1
    assert compared > 50
    # Shares are shares, and the median that the table shows lies where half of them are.
    for epoch, layer, *cells in table(b, "distributions")[1:]:
        for run, (low, middle, high) in zip(names, (cells[:3], cells[3:])):
            wanted = (run, epoch, "intoActivation all", layer)
            bins = [
                (float(r["index"]), float(r["value"]))
                for r in rows
                if (r["run"], r["epoch"], r["what"], r["layer"]) == wanted
            ]
            assert abs(sum(share for _, share in bins) - 1) < 1e-4
            assert float(low) <= float(middle) <= float(high)
            below = sum(share for edge, share in bins if edge < float(middle))
            without = sum(share for edge, share in bins[:-1] if edge < float(middle) - 0.3 * (1 + abs(float(middle))))
            assert below >= 0.499, (below, without, middle)
            assert without <= 0.501, (below, without, middle)


@both
def every_chart_has_a_table(b: Browser) -> None:
    open_page(b, f"{SMALL}&landscape=true")
    for chart in b.js("Object.keys(CHARTS)"):
        head, *rows = table(b, chart)
        assert len(head) >= 2, chart
        assert len(rows) >= 3, chart
        assert all(len(row) == len(head) for row in rows), chart
        assert all(cell.strip() not in ("", "NaN", "undefined") for row in [head, *rows] for cell in row), chart


@both
def a_run_that_ends_says_why(b: Browser) -> None:
    open_page(b, f"{SMALL}&depth=12&weightScale=10000")
    assert "diverged" in text(b, "ended"), text(b, "ended")
    open_page(b, f"{SMALL}&batch=1")
    assert "one value has no variance" in text(b, "ended"), text(b, "ended")
    assert "without batch norm:" not in text(b, "ended")
    assert b.complaints == []


@both
def recalibration_says_what_it_changed(b: Browser) -> None:
    open_page(b, f"{SMALL}&bnMomentum=0")
    before = table(b, "accuracy")[-1][2]
    click(b, "recalibrate")
    b.wait("page.view.recalibrated.length === 1")
    assert f"with batch norm: {before} before" in text(b, "ended")
    assert "without" not in text(b, "ended")
    after = b.js("page.view.recalibrated[0].runs[1].after")
    assert after > float(before.split()[0]) / 100, (before, after)
    assert f"{100 * after:.1f} % after" in text(b, "ended")
    assert float([r for r in written(b) if r["what"] == "accuracy recalibrated"][1]["value"]) == after


@both
def each_gets_its_best_rate(b: Browser) -> None:
    open_page(b)
    click(b, "best")
    b.wait("page.settings.rateWithout > 0", 300)
    b.wait(f"{STATE} === 'done'")
    rates = b.js("page.view.settings.map(each => each.rate)")
    assert rates == b.js("[page.settings.rateWithout, page.settings.rate]")
    assert all(rate in b.js("RATES") for rate in rates)
    assert f"rateWithout={rates[0]:g}" in b.js("location.hash")
    click(b, "same-rate-button")
    b.wait("page.settings.rateWithout === 0 && page.view.settings[0].rate === page.view.settings[1].rate")
