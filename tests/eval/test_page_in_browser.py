"""The page in a real browser, wide and narrow, light and dark: nothing from outside, all in its place and readable."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from eval import report
from llava_pose.scene import PosedImage, PosedObject
from tests.browser import BEYOND, CONTRAST, Watch, browser, needs_browser
from tests.eval.made_up import made_up_lines, made_up_metrics

pytestmark = needs_browser
PHONE, DESK = 390, 1280
VIEWS = [(PHONE, False), (PHONE, True), (DESK, False), (DESK, True)]

BOXES = (
    "[...document.querySelectorAll('%s')].map(e => { const b = e.getBoundingClientRect(); return [b.width, b.height] })"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page that has every section, on pictures that are all one colour."""
    lines = made_up_lines(300)
    # A long path, as people have them: it has no place to break.
    metrics = made_up_metrics(lines)
    metrics["settings"]["model"] = "/a/very/long/path/" + "without_any_place_to_break_" * 6
    table = {"count": 9, "accuracy": 75.0, "chance_majority": 30.0, "chance_uniform": 12.5, "flip_consistency": 80.0}
    metrics["questions"] = {"overall": table, "kinds": {"facing": table}}

    def find(line):
        target = line["target"]
        item = PosedObject(
            object_id=0,
            category=line["category"],
            bbox=(20.0, 20.0, 100.0, 80.0),
            **target,
            distance=4.0,
            px=60.0,
            py=50.0,
            viewport=900.0,
            cad_index=0,
            status="",
            dense="",
        )
        return PosedImage(Image.new("RGB", (120, 100), (120, 140, 90)), line["image_id"], 120, 100, (item,), "", ())

    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report.render(metrics, lines, find), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def chromium():
    with browser() as chromium:
        yield chromium


@pytest.fixture
def look(chromium):
    """Opens a page at a width, in the light or the dark; returns the tab, and what it asked for and complained of."""

    def look(address, width, dark=False):
        scheme = "dark" if dark else "light"
        tab = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        tabs.append(tab)
        watch = Watch(tab)
        tab.goto(address)
        return tab, watch

    tabs = []
    yield look
    for tab in tabs:
        tab.close()


@pytest.mark.parametrize(("width", "dark"), VIEWS)
def test_everything_is_there_in_its_place_and_nothing_comes_from_outside(look, page, width, dark):
    tab, watch = look(page.as_uri(), width, dark)
    assert watch.requests == [page.as_uri()]
    pictures = tab.evaluate("[...document.images].map(i => i.src.slice(0, 15))")
    assert set(pictures) == {"data:image/jpeg"} and len(pictures) >= 30
    assert watch.complaints == []
    sections = tab.evaluate(BOXES % "section")
    assert len(sections) == 13 and all(w > 0.8 * min(width, 1100) - 40 and h > 60 for w, h in sections)
    assert len(tab.evaluate(BOXES % "svg")) == 6 and all(w > 250 and h > 150 for w, h in tab.evaluate(BOXES % "svg"))
    assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth == 224 && i.clientWidth > 100)")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate(BEYOND) == []


@pytest.mark.parametrize(("width", "dark"), VIEWS)
def test_every_word_can_be_read(look, page, width, dark):
    tab, _ = look(page.as_uri(), width, dark)
    tab.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true })")
    faint = [entry for entry in tab.evaluate(CONTRAST) if entry[0] < 4.5]
    assert faint == []
    letters = "[...document.querySelectorAll('svg text')].map(e => e.getBoundingClientRect().height)"
    assert min(tab.evaluate(letters)) >= 10, "the height of a line of text in pixels"


def test_the_page_is_not_blank_and_dark_is_dark(look, page):
    pictures = []
    for dark in (False, True):
        tab, _ = look(page.as_uri(), DESK, dark)
        shot = Image.open(io.BytesIO(tab.screenshot(full_page=True))).convert("RGB")
        pictures.append(np.asarray(shot).astype(np.int16))
    light, dark = pictures
    assert light.shape == dark.shape and light.shape[1] == DESK and light.shape[0] > 4000
    assert light.mean() > 200 and dark.mean() < 60
    for picture in pictures:
        background = picture[5, 5]
        drawn = (np.abs(picture - background).max(-1) > 60).mean()
        assert drawn > 0.02
        # Every screenful of the page has something on it.
        for top in range(0, len(picture) - 900, 900):
            assert (np.abs(picture[top : top + 900] - background).max(-1) > 60).any()


def test_what_is_folded_opens_at_a_click_and_links_lead_to_their_sections(look, page):
    tab, _ = look(page.as_uri(), PHONE)
    before = tab.evaluate("document.querySelector('details').getBoundingClientRect().height")
    tab.evaluate("document.querySelector('summary').click()")
    assert tab.evaluate("document.querySelector('details').getBoundingClientRect().height") > before + 100
    for index in range(tab.evaluate("document.querySelectorAll('nav a').length")):
        link = f"document.querySelectorAll('nav a')[{index}]"
        assert tab.evaluate(
            f"document.getElementById({link}.hash.slice(1)).querySelector('h2').textContent == {link}.textContent"
        )


def test_a_request_to_the_outside_would_be_noticed(look, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<!doctype html><img src="http://127.0.0.1:9/x.png"><style>@import "http://127.0.0.1:9/y.css";</style>'
    )
    _, watch = look(bad.as_uri(), PHONE)
    assert {"http://127.0.0.1:9/x.png", "http://127.0.0.1:9/y.css"} <= set(watch.requests)
    assert watch.complaints
