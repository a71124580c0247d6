# SPDX-License-Identifier: Apache-2.0
"""The settings, lessons and the address."""

from __future__ import annotations

import time

from browsers import Browser
from harness import SMALL, STATE, both, click, open_page, text


@both
def each_lesson_has_a_button_that_loads_it(b: Browser) -> None:
    open_page(b)
    lessons = b.js("LESSONS.map(({ holds, ...lesson }) => lesson)")
    assert len(lessons) > 0
    for lesson in lessons:
        article = f"document.getElementById('lesson-{lesson['id']}')"
        assert lesson["claim"] in b.js(f"{article}.textContent")
        assert b.js(f"{article}.querySelector('svg').getBBox().height") > 100
        told = "modes" in lesson["show"] and "recalibrate" not in lesson["show"]
        assert (", in training mode " in b.js(f"{article}.querySelector('.hint').textContent")) is told
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
def numbers_are_rounded_before_they_are_put_in_words(b: Browser) -> None:
    open_page(b)
    wanted = {
        "10 ** -4": "0.0001",
        "9.996e-5": "0.0001",
        "1e-5": "1.0e-5",
        "99999.9": "1.0e5",
        "0.12345": "0.123",
        "0": "0",
    }
    for value, said in wanted.items():
        assert b.js(f"number({value})") == said


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
    # A change by the reader is in the address, and in the next run.
    b.js("""(() => {
        const e = document.getElementById('set-activation');
        e.value = 'sigmoid';
        e.dispatchEvent(new Event('change'));
    })()""")
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
        assert b.js("page.view.epochs.length") == 3, (harm, b.complaints)
        assert b.complaints == [], (harm, b.complaints)
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
