# SPDX-License-Identifier: Apache-2.0
"""Names, keys, contrast, colours, widths: that everyone can use it."""

from __future__ import annotations

import itertools
import json

from browsers import Browser, Chromium
from colours import SIGHT, contrast, distance
from harness import SMALL, STATE, both, chromium, click, open_page, table


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
        box = b.js(f"""(() => {{
            const {{ left, top, width, height }} = document.getElementById('chart-{chart}').getBoundingClientRect();
            return [left, top, width, height];
        }})()""")
        b.mouse(box[0] + 48 + place * (box[2] - 62), box[1] + box[3] / 2)
        b.js("new Promise(requestAnimationFrame)")
        found = b.js(f"document.querySelector('#figure-{chart} .read').textContent")
        assert found.startswith(wanted), (chart, place, found)
    b.mouse(1, 1)


@chromium
def focus_is_seen_on_all_that_takes_it(b: Chromium) -> None:
    open_page(b)
    b.js("document.querySelectorAll('details').forEach(e => e.open = true)")
    wanted = b.js("""[...document.querySelectorAll('button, input, select, summary, canvas, .scroll')]
        .filter(e => e.checkVisibility()).length""")
    reached = set()
    for _ in range(wanted + 20):
        b.tab("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
        found = b.js("""(() => {
            const e = document.activeElement, { outlineStyle, outlineWidth } = getComputedStyle(e);
            const place = [...document.querySelectorAll('*')].indexOf(e), name = e.tagName + '#' + e.id;
            return e === document.body ? null : [place, name, outlineStyle, parseFloat(outlineWidth)];
        })()""")
        if found:
            assert found[2] == "solid", found
            assert found[3] >= 2, found
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
        outside = b.js("""[...document.querySelectorAll('body *')].filter((e) => {
            const { left, right } = e.getBoundingClientRect();
            return e.checkVisibility() && !e.closest('.scroll *, svg *, option') &&
                (right > document.documentElement.clientWidth + 1 || left < -1);
        }).map((e) => e.tagName + '.' + e.id)""")
        assert outside == [], (width, outside)
        small = b.js("""[...document.querySelectorAll('button, select, input, summary')]
            .filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 20)
            .map(e => e.id || e.tagName)""")
        assert small == [], small
    b.size(1360, 900)


CONTRASTS = """[...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() && !e.closest('svg') &&
    [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())).map((e) => {
    let under = e;
    while (under && getComputedStyle(under).backgroundColor === 'rgba(0, 0, 0, 0)') under = under.parentElement;
    const name = e.tagName + '.' + e.className + '#' + e.id;
    return [name, getComputedStyle(e).color, getComputedStyle(under).backgroundColor];
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
    corner = """(() => {
        const canvas = document.getElementById('chart-distributions');
        return [...canvas.getContext('2d').getImageData(60, 24, 1, 1).data];
    })()"""
    assert contrast(b.js("getComputedStyle(document.body).backgroundColor"), "#000000") < 1.3
    dark = b.js(corner)
    b.media(prefers_color_scheme="light")
    b.wait("page.colours.bg === '#ffffff'")
    b.js("new Promise(requestAnimationFrame)")
    b.js("new Promise(requestAnimationFrame)")
    light = b.js(corner)
    assert dark[3] == light[3] == 255, (dark, light)
    assert sum(light[:3]) > sum(dark[:3]) + 100, (dark, light)
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
