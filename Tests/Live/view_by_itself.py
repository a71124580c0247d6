# SPDX-License-Identifier: Apache-2.0
"""The page by itself: nothing but it is needed, and it is there for all."""

from __future__ import annotations

import time

from browsers import Browser, Chromium
from harness import PAGE, Frames, both, chromium, click, open_page, table, text


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
    assert others == [], others
    assert len(b.requests) > 0
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
            assert heard["state"] == "done", heard
            assert "of the test images" in heard["headline"], heard
            b.complaints = [each for each in b.complaints if "favicon" not in each]
            assert b.complaints == [], b.complaints


@chromium
def without_scripts_and_on_paper_the_lessons_are_there(b: Chromium) -> None:
    visible = """[...document.querySelectorAll('{}')]
        .filter(e => e.checkVisibility() && e.getBoundingClientRect().height > 0).length"""
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
