# SPDX-License-Identifier: Apache-2.0
"""view.py BROWSER PAGE [TEST...]: the live page in a headless Chromium or Firefox. The last line counts."""

from __future__ import annotations

import csv
import html
import io
import itertools
import json
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from browsers import Browser, Chromium, Firefox
from colours import SIGHT, contrast, distance

SMALL = "epochs=3&units=8&depth=2"  # a run that takes no time
STATE = "document.documentElement.dataset.state"
TESTS: list[tuple[str, Callable[..., None]]] = []


def both(function: Callable[[Any], None]) -> Callable[[Any], None]:
    TESTS.append(("both", function))
    return function


def chromium(function: Callable[[Chromium], None]) -> Callable[[Chromium], None]:
    TESTS.append(("chromium", function))
    return function


def open_page(b: Browser, settings: str = SMALL, state: str = "done") -> None:
    b.clear()
    b.go(f"{PAGE.as_uri()}#{settings}" if settings else PAGE.as_uri())
    b.wait(f"{STATE} === {state!r} || {STATE} === 'failed'")
    assert b.js(STATE) == state, b.js("document.getElementById('status').textContent")


def text(b: Browser, name: str) -> str:
    found = b.js(f"document.getElementById('{name}').textContent")
    assert isinstance(found, str)
    return found


def click(b: Browser, name: str) -> None:
    b.js(f"document.getElementById('{name}').click()")


def table(b: Browser, chart: str) -> list[list[str]]:
    """Its head and rows, after it was opened as a reader does."""
    b.js(f"document.querySelector('#figure-{chart} details').open = true")
    b.wait(f"document.querySelector('#table-{chart} tbody').rows.length > 0")
    rows = f"[...document.querySelectorAll('#table-{chart} tr')]"
    found: list[list[str]] = b.js(f"{rows}.map(row => [...row.cells].map(cell => cell.textContent))")
    return found


def written(b: Browser) -> list[dict[str, str]]:
    """The rows of the CSV that the button saves."""
    b.js("""(() => {
        const usual = URL.createObjectURL;
        URL.createObjectURL = (blob) => (globalThis.saved = blob.text(), URL.createObjectURL = usual, usual.call(URL, blob));
        document.getElementById('save').click();
    })()""")
    data = b.js("globalThis.saved")
    assert data.count("\n") == data.count("\r\n") > 100
    return list(csv.DictReader(io.StringIO(data, newline="")))


# The page by itself.


@both
def the_headline_runs_by_itself_and_its_claim_is_true(b: Browser) -> None:
    open_page(b, "")
    assert b.js("document.getElementById('verdict').dataset.holds") == "true", text(b, "verdict")
    assert text(b, "verdict").startswith("In this run it is so.")
    last = table(b, "accuracy")[-1]
    assert last[0] == str(b.js("LESSONS[0].epochs")), last
    headline = text(b, "headline")
    assert f"{last[1]} of the test images, the one with it {last[2]}" in headline.replace("knows ", ""), (
        headline,
        last,
    )
    assert float(last[1].split()[0]) <= 30
    assert float(last[2].split()[0]) >= 94


@both
def it_asks_for_nothing_but_itself(b: Browser) -> None:
    open_page(b)
    others = [each for each in b.requests if not each.startswith("blob:") and each != PAGE.as_uri()]
    others = [each for each in others if each.split("#")[0] != PAGE.as_uri() and each not in ("about:blank", "data:,")]
    assert others == [] and len(b.requests) > 0, others
    assert b.complaints == [], b.complaints


@both
def it_has_no_address_of_elsewhere(b: Browser) -> None:
    source = PAGE.read_text()
    assert len(source.encode()) < 300_000
    for wrong in ("http://", "https://", "src=", "@import", "url("):
        assert wrong not in source, wrong


@both
def it_works_in_a_sandboxed_frame(b: Browser) -> None:
    for source in ("srcdoc", "src"):
        with Frames(source) as address:
            b.clear()
            b.go(address)
            b.wait("globalThis.heard !== undefined")
            heard = b.js("globalThis.heard")
            assert heard["state"] == "done" and "of the test images" in heard["headline"], heard
            b.complaints = [each for each in b.complaints if "favicon" not in each]
            assert b.complaints == [], b.complaints


@chromium
def without_scripts_and_on_paper_the_lessons_are_there(b: Chromium) -> None:
    visible = "[...document.querySelectorAll('{}')].filter(e => e.checkVisibility() && e.getBoundingClientRect().height > 0).length"
    open_page(b)
    count = b.js("LESSONS.length")
    assert b.js(visible.format("#workbench")) == 1
    assert b.js(visible.format("[data-lesson]")) == count
    b.media("print")
    for _ in range(2):
        assert b.js(visible.format("#workbench")) == 0
        assert b.js(visible.format("[data-lesson]")) == 0
        assert b.js(visible.format("article svg")) == b.js(visible.format("article .not")) == count > 0
        b.media()
        b.tab("Emulation.setScriptExecutionDisabled", value=True)
        b.go(PAGE.as_uri())
    assert b.js(visible.format("noscript p")) == 1
    b.tab("Emulation.setScriptExecutionDisabled", value=False)


@chromium
def it_stands_still_for_who_wants_that(b: Chromium) -> None:
    b.media(prefers_reduced_motion="reduce")
    open_page(b, "", "waiting")
    time.sleep(1)  # in which it would have begun
    assert b.js("page.view.epochs.length") == 0
    assert "press Train" in text(b, "headline")
    click(b, "play")
    b.wait("page.view.epochs.length > 0")
    b.media()


# What it shows.


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
                if (pixels[i + 3] > 100 && wanted.every((value, k) => Math.abs(value - pixels[i + k]) < 24)) near[name]++;
            }
        }
        return [id, canvas.clientHeight, near];
    })""".replace("CHART_NAMES", "Object.keys(CHARTS)")
    )
    assert len(found) >= 8
    for name, height, near in found:
        assert height > 60 and near["with"] > 20, (name, height, near)
        assert near["without"] > 20 or name in ("mean", "variance"), (name, near)
    last = b.js(
        "LESSONS.some(lesson => lesson.show.includes('landscape')) && page.view.epochs.at(-1).runs[1].landscape"
    )
    assert last is False or len(last["at"]) > 0


@both
def a_line_is_where_its_value_is(b: Browser) -> None:
    """By the pixels: below 50 % nothing blue, if the accuracy with batch norm is above; and the other way around."""
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
                if (pixels[i + 3] > 200 && wanted.every((value, k) => Math.abs(value - pixels[i + k]) < 12)) rows.push(Math.floor(i / 4 / width) / height);
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
            assert below >= 0.499 and without <= 0.501, (below, without, middle)


@both
def every_chart_has_a_table(b: Browser) -> None:
    open_page(b, f"{SMALL}&landscape=true")
    for chart in b.js("Object.keys(CHARTS)"):
        head, *rows = table(b, chart)
        assert len(head) >= 2 and len(rows) >= 3 and all(len(row) == len(head) for row in rows), chart
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


# Its settings.


@both
def each_lesson_has_a_button_that_loads_it(b: Browser) -> None:
    open_page(b)
    lessons = b.js("LESSONS.map(({ id, title, claim, epochs, runs }) => ({ id, title, claim, epochs, runs }))")
    assert len(lessons) > 0
    for lesson in lessons:
        article = f"document.getElementById('lesson-{lesson['id']}')"
        assert lesson["claim"] in b.js(f"{article}.textContent")
        assert b.js(f"{article}.querySelector('svg').getBBox().height") > 100
        b.js(f"{article}.querySelector('button').click()")
        b.wait(f"page.lesson?.id === '{lesson['id']}' && page.view.epochs.length > 0")
        assert text(b, "subject") == lesson["title"]
        assert text(b, "claim") == lesson["claim"]
        assert b.js("location.hash").startswith(f"#lesson={lesson['id']}")
        assert b.js("page.view.until") == lesson["epochs"]
        assert b.js("document.activeElement.id") == "subject"
        assert b.js("[...document.querySelectorAll('[aria-pressed=true]')].map(e => e.dataset.lesson)") == [
            lesson["id"]
        ]
        for run, given in zip(lesson["runs"], b.js("page.view.settings"), strict=True):
            assert {key: given[key] for key in run["settings"]} == run["settings"]
        assert len(b.js("page.view.epochs[0].runs")) == len(lesson["runs"])
        epochs = b.js("page.view.epochs.map(each => each.epoch)")
        assert epochs == list(range(1, len(epochs) + 1)), epochs


@both
def the_address_has_every_setting(b: Browser) -> None:
    wanted = {
        "rate": 0.25, "batch": 33, "depth": 3, "units": 12, "weightScale": 0.5, "bnMomentum": 0.3, "activation": "tanh",
        "norm": "first-before", "pixels": "raw", "descentMomentum": 0.9, "seed": 3, "epochs": 4, "pace": 200,
        "landscape": True, "eps": 0.001, "rateWithout": 0.125, "modes": True, "place": "out", "unit": 2,
        "normNumber": 2, "channel": 7,
    }  # fmt: skip
    assert set(wanted) == set(b.js("Object.keys(SETTINGS)"))
    written_out = "&".join(f"{key}={str(value).lower() if value is True else value}" for key, value in wanted.items())
    open_page(b, written_out)
    assert b.js("page.settings") == wanted
    assert b.js("writeAddress(page)") == f"#{written_out}"
    shown = b.js("page.view.settings")
    assert [each["rate"] for each in shown] == [0.125, 0.25]
    assert [each["eps"] for each in shown] == [0.001, 0.001]
    assert [(each["placement"], each["firstLayer"]) for each in shown] == [("none", False), ("before", True)]
    # What a reader changes is in the address, and in the next run.
    b.js(
        "(() => { const e = document.getElementById('set-activation'); e.value = 'sigmoid'; e.dispatchEvent(new Event('change')); })()"
    )
    b.wait("location.hash.includes('activation=sigmoid') && page.view.settings[1].activation === 'sigmoid'")
    open_page(b, "lesson=rates&seed=2&epochs=1")
    assert b.js("page.lesson.id") == "rates"
    assert b.js("page.view.settings.every(each => each.seed === 2 && each.rate === 1)")


@both
def an_address_that_means_harm_does_none(b: Browser) -> None:
    open_page(
        b,
        "rate=1e999&batch=-5&depth=1e3&units=0&seed=-1&activation=__proto__&norm=toString&epochs=1&eps=0&bnMomentum=7",
    )
    found = b.js("page.settings")
    assert (found["rate"], found["batch"], found["depth"], found["units"], found["seed"]) == (0.1, 1, 20, 1, 0), found
    assert (found["activation"], found["norm"], found["eps"], found["bnMomentum"]) == ("relu", "before", 1e-12, 1), (
        found
    )
    marks = "%3Cimg src=x onerror=globalThis.harmed=1%3E"
    for harm in (
        f"lesson={marks}&activation={marks}&{SMALL}",
        f"lesson=constructor&__proto__=1&constructor=2&{SMALL}",
        f"pace=&rate=&seed=NaN&batch=0x10&unit=99&channel=1e9&normNumber=0.2&{SMALL}",
        f"%E0%A4%A&&&===&{SMALL}",
    ):
        open_page(b, harm)
        assert b.js("globalThis.harmed === undefined && document.querySelectorAll('img').length === 0")
        assert b.js("page.view.epochs.length") == 3 and b.complaints == [], (harm, b.complaints)
    # A raw hash in the running page, too.
    b.js("location.hash = 'rate=3&epochs=2&units=4&depth=1'")
    b.wait(f"page.settings.rate === 3 && {STATE} === 'done' && page.view.epochs.length === 2")


@both
def what_comes_too_late_is_not_shown(b: Browser) -> None:
    open_page(b)
    b.js("['rate', 'depth', 'units'].forEach(key => (page.changed(key, 4), page.restart()))")
    b.js("document.querySelector('[data-lesson]').click()")
    b.js("page.changed('epochs', 2), page.changed('seed', 1)")
    b.wait(f"page.settings.epochs === 2 && page.view.until === 2 && {STATE} === 'done'")
    assert b.js("page.view.epochs.map(each => each.epoch)") == [1, 2]


@both
def it_trains_on_pauses_and_steps(b: Browser) -> None:
    open_page(b)
    assert text(b, "play") == "Train on"
    click(b, "play")
    b.wait(f"page.view.epochs.length === 6 && {STATE} === 'done'")
    click(b, "step")
    b.wait("page.view.epochs.length === 7")
    assert b.js("page.view.epochs.map(each => each.epoch)") == [1, 2, 3, 4, 5, 6, 7]
    click(b, "reset")
    assert b.js("page.view.epochs.length") == 0
    assert text(b, "play") == "Train"
    open_page(b, f"{SMALL}&epochs=500", "training")
    click(b, "play")
    b.wait(f"{STATE} === 'waiting'")
    time.sleep(0.5)  # an epoch may have been on its way
    count = b.js("page.view.epochs.length")
    time.sleep(0.5)
    assert b.js("page.view.epochs.length") == count


# For whom it is.


@chromium
def everything_has_a_name_of_its_own(b: Chromium) -> None:
    open_page(b, f"{SMALL}&landscape=true&rateWithout=0.5")
    nodes = b.tab("Accessibility.getFullAXTree")["nodes"]
    roles = (
        "slider",
        "combobox",
        "checkbox",
        "button",
        "Canvas",
        "region",
        "DisclosureTriangle",
        "form",
        "image",
        "graphics-document",
    )
    named: dict[str, list[str]] = {}
    for node in nodes:
        role = node.get("role", {}).get("value")
        if role in roles and not node.get("ignored"):
            named.setdefault(role, []).append(node.get("name", {}).get("value", ""))
    counts = {"slider": 7 + 2 + 11, "combobox": 6 + 2, "checkbox": 2, "form": 1}
    for role, count in counts.items():
        assert len(named[role]) == count, (role, named[role])
    assert len(named["button"]) == 8 + len(b.js("LESSONS"))
    for role, names in named.items():
        assert all(name.strip() for name in names), (role, names)
        assert len(set(names)) == len(names), (role, names)
    charts = [name for name in named["slider"] if ":" in name]
    assert len(charts) == len(b.js("Object.keys(CHARTS)"))
    for name in charts:
        assert any(letter.isdigit() for letter in name.split(":", 1)[1]), name
    # The reader hears values, not exponents.
    spoken = {
        n["name"]["value"]: n.get("value", {}).get("value") for n in nodes if n.get("role", {}).get("value") == "slider"
    }
    assert b.js("document.getElementById('set-rate').getAttribute('aria-valuetext')") == "0.1", spoken


@chromium
def keys_do_what_the_mouse_does(b: Chromium) -> None:
    open_page(b)
    b.js("document.activeElement.blur()")
    b.key("r")
    b.wait("page.view.epochs.length === 0")
    b.key(".")
    b.wait("page.view.epochs.length === 1")
    b.key(" ")
    b.wait(f"{STATE} === 'done' && page.view.epochs.length === 3")

    def read(chart: str) -> str:
        b.js("new Promise(requestAnimationFrame)")
        found = b.js(f"document.querySelector('#figure-{chart} .read').textContent")
        assert (
            found[:-1].lower()
            == b.js(f"document.getElementById('chart-{chart}').getAttribute('aria-valuetext')").lower()
        )
        return str(found)

    b.js("document.getElementById('chart-loss').focus()")
    seen = []
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft", "End"):
        b.key(key)
        seen.append(read("loss").split(":")[0])
    assert seen == ["Epoch 1", "Epoch 2", "Epoch 3", "Epoch 3", "Epoch 2", "Epoch 3"], seen
    b.key("Home")
    shown = read("loss")
    row = table(b, "loss")[1]
    assert shown == f"Epoch 1: without batch norm {row[1]}; with batch norm {row[4]}.", (shown, row)
    b.js("document.getElementById('chart-distributions').focus()")
    b.key("ArrowDown")
    assert "layer 2" in read("distributions")
    b.key("ArrowDown")
    b.key("ArrowUp")
    assert "layer 2" in read("distributions") or "layer 1" in read("distributions")
    # A key in a control is the control's.
    b.js("document.getElementById('set-depth').focus()")
    b.key(" ")
    assert b.js(STATE) == "done"


@chromium
def the_mouse_reads_where_it_is(b: Chromium) -> None:
    b.size(1360, 900)
    open_page(b)
    for chart, place, wanted in (("loss", 0.0, "Epoch 1:"), ("loss", 0.5, "Epoch 2:"), ("gradient", 1.0, "Layer 3:")):
        b.js(f"document.getElementById('chart-{chart}').scrollIntoView({{ behavior: 'instant', block: 'center' }})")
        box = b.js(
            f"(({{ left, top, width, height }}) => [left, top, width, height])(document.getElementById('chart-{chart}').getBoundingClientRect())"
        )
        b.mouse(box[0] + 48 + place * (box[2] - 62), box[1] + box[3] / 2)
        b.js("new Promise(requestAnimationFrame)")
        found = b.js(f"document.querySelector('#figure-{chart} .read').textContent")
        assert found.startswith(wanted), (chart, place, found)
    b.mouse(1, 1)


@chromium
def focus_is_seen_on_all_that_takes_it(b: Chromium) -> None:
    open_page(b)
    b.js("document.querySelectorAll('details').forEach(e => e.open = true)")
    wanted = b.js(
        "[...document.querySelectorAll('button, input, select, summary, canvas, .scroll')].filter(e => e.checkVisibility()).length"
    )
    reached = set()
    for _ in range(wanted + 20):
        b.tab("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
        found = b.js("""(() => {
            const e = document.activeElement, { outlineStyle, outlineWidth } = getComputedStyle(e);
            return e === document.body ? null : [[...document.querySelectorAll('*')].indexOf(e), e.tagName + '#' + e.id, outlineStyle, parseFloat(outlineWidth)];
        })()""")
        if found:
            assert found[2] == "solid" and found[3] >= 2, found
            reached.add(found[0])
    assert len(reached) == wanted, (len(reached), wanted)


@both
def nothing_is_wider_than_the_screen(b: Browser) -> None:
    for width in (320, 390, 768, 1600):
        b.size(width, 800)
        open_page(b, f"{SMALL}&landscape=true&modes=true")
        b.js("document.querySelectorAll('details').forEach(e => e.open = true)")
        click(b, "link")
        b.js("new Promise(done => setTimeout(done, 100))")
        inner, wide = b.js("[document.documentElement.clientWidth, document.documentElement.scrollWidth]")
        assert wide <= inner, (width, inner, wide)
        outside = b.js("""[...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() && !e.closest('.scroll *, svg *, option') &&
            (e.getBoundingClientRect().right > document.documentElement.clientWidth + 1 || e.getBoundingClientRect().left < -1)).map((e) => e.tagName + '.' + e.id)""")
        assert outside == [], (width, outside)
        small = b.js(
            "[...document.querySelectorAll('button, select, input, summary')].filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 20).map(e => e.id || e.tagName)"
        )
        assert small == [], small
    b.size(1360, 900)


CONTRASTS = """[...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() && !e.closest('svg') &&
    [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())).map((e) => {
    let under = e;
    while (under && getComputedStyle(under).backgroundColor === 'rgba(0, 0, 0, 0)') under = under.parentElement;
    return [e.tagName + '.' + e.className + '#' + e.id, getComputedStyle(e).color, getComputedStyle(under).backgroundColor];
})"""


@both
def text_has_contrast(b: Browser) -> None:
    for scheme in ("light", "dark"):
        if isinstance(b, Chromium):
            b.media(prefers_color_scheme=scheme)
        elif scheme == "dark":
            continue
        open_page(b, "")
        b.js("document.querySelectorAll('details').forEach(e => e.open = true)")
        b.js("new Promise(done => setTimeout(done, 400))")  # colours that change do so slowly
        found = b.js(CONTRASTS)
        assert len(found) > 60
        for name, colour, under in found:
            assert contrast(colour, under) >= 4.5, (scheme, name, colour, under, contrast(colour, under))
        colours = b.js("page.colours")
        for name in ("without", "with", "third", "ink", "muted"):
            for under in ("panel", "bg"):
                assert contrast(colours[name], colours[under]) >= 4.5, (scheme, name, under)
    if isinstance(b, Chromium):
        b.media()


@chromium
def dark_is_dark(b: Chromium) -> None:
    b.media(prefers_color_scheme="dark")
    open_page(b)
    corner = "(() => { const c = document.getElementById('chart-distributions'); return [...c.getContext('2d').getImageData(60, 24, 1, 1).data]; })()"
    assert contrast(b.js("getComputedStyle(document.body).backgroundColor"), "#000000") < 1.3
    dark = b.js(corner)
    b.media(prefers_color_scheme="light")
    b.wait("page.colours.bg === '#ffffff'")
    b.js("new Promise(requestAnimationFrame)")
    b.js("new Promise(requestAnimationFrame)")
    light = b.js(corner)
    assert dark[3] == light[3] == 255 and sum(light[:3]) > sum(dark[:3]) + 100, (dark, light)
    b.media()


@chromium
def colours_are_told_apart_by_all_eyes(b: Chromium) -> None:
    for scheme in ("light", "dark"):
        b.media(prefers_color_scheme=scheme)
        open_page(b)
        colours = b.js("page.colours")
        for sight in SIGHT:
            for one, other in itertools.combinations(("without", "with", "third"), 2):
                wanted = 40 if {one, other} == {"without", "with"} else 25
                found = distance(colours[one], colours[other], sight)
                assert found >= wanted, (scheme, sight, one, other, found)
    b.media()
    looks = b.js("[LOOKS.without, ...LOOKS.with]")
    for key in ("dash", "marker", "colour"):
        assert len({json.dumps(look[key]) for look in looks}) == len(looks), key


class Frames:
    """A page with the live page in a frame that may run scripts and nothing else; the address of it, by HTTP."""

    def __init__(self, kind: str) -> None:
        self.folder = tempfile.TemporaryDirectory()
        # The frame has no other way to tell how it is.
        tells = """<script>setInterval(() => parent.postMessage({ state: document.documentElement.dataset.state,
            headline: document.getElementById('headline').textContent }, '*'), 100)</script>"""
        page = PAGE.read_text().replace("</body>", f"{tells}</body>")
        Path(self.folder.name, "page.html").write_text(page)
        source = f'srcdoc="{html.escape(page)}"' if kind == "srcdoc" else 'src="page.html"'
        Path(
            self.folder.name, "frame.html"
        ).write_text(f"""<!doctype html><meta charset="utf-8"><title>frame</title><link rel="icon" href="data:,"><script>
            onmessage = ({{ data }}) => {{ if (['done', 'failed'].includes(data.state)) globalThis.heard = data; }};
            </script><iframe sandbox="allow-scripts" width="900" height="700" {source}></iframe>""")

    def __enter__(self) -> str:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=self.folder.name))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}/frame.html"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.folder.cleanup()


class Quiet(SimpleHTTPRequestHandler):
    """Files by GET."""

    def log_message(self, *_: object) -> None:
        """Says nothing of every file."""


def main(browser: str, only: list[str]) -> int:
    is_firefox = "firefox" in browser
    b = Firefox(browser) if is_firefox else Chromium(browser)
    passed = failed = 0
    for kind, test in TESTS:
        if (is_firefox and kind == "chromium") or (only and test.__name__ not in only):
            continue
        started = time.monotonic()
        try:
            test(b)
            passed += 1
            print(f"passed {test.__name__} ({time.monotonic() - started:.1f} s)")
        except Exception:
            failed += 1
            print(f"FAILED {test.__name__}\n{traceback.format_exc()}")
    b.close()
    print(f"{passed} passed, {failed} failed")
    return int(failed > 0 or passed == 0)


if __name__ == "__main__":
    PAGE = Path(sys.argv[2]).resolve()
    raise SystemExit(main(sys.argv[1], sys.argv[3:]))
