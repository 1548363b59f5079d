"""The page in a real browser, wide and narrow, light and dark: nothing from outside, all in its place and readable."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from eval import report
from llava_pose.scene import PosedImage, PosedObject
from tests.browser import browser, executable
from tests.eval.made_up import made_up_lines, made_up_metrics

pytestmark = pytest.mark.skipif(
    executable() is None, reason="no browser: none of chromium, chromium-browser and google-chrome is installed"
)
PHONE, DESK = 390, 1280
VIEWS = [(PHONE, False), (PHONE, True), (DESK, False), (DESK, True)]

BOXES = (
    "[...document.querySelectorAll('%s')].map(e => { const b = e.getBoundingClientRect(); return [b.width, b.height] })"
)
BEYOND = """[...document.querySelectorAll('body *')].filter(e => {
  const right = e.getBoundingClientRect().right;
  return right > innerWidth + 1 && !e.closest('.wide');
}).map(e => e.outerHTML.slice(0, 80))"""
CONTRAST = """(() => {
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b };
  const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
      if (!c.endsWith(', 0)')) return c } };
  return [...document.querySelectorAll('h1, h2, h3, p, a, td, th, small, b, span, figcaption, summary, text')]
    .filter(e => e.textContent.trim())
    .map(e => { const style = getComputedStyle(e);
      const ink = light(e.tagName == 'text' ? style.fill : style.color), page = light(behind(e));
      return [(Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05), e.outerHTML.slice(0, 80)] });
})()"""


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
def tab(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser") / "profile") as tab:
        yield tab


@pytest.mark.parametrize(("width", "dark"), VIEWS)
def test_everything_is_there_in_its_place_and_nothing_comes_from_outside(tab, page, width, dark):
    tab.open(page.as_uri(), width, dark=dark)
    asked = tab.requests()
    assert asked[0] == page.as_uri()
    assert all(address.startswith("data:image/jpeg") for address in asked[1:]) and len(asked) > 30
    assert tab.complaints() == []
    sections = tab.ask(BOXES % "section")
    assert len(sections) == 13 and all(w > 0.8 * min(width, 1100) - 40 and h > 60 for w, h in sections)
    assert len(tab.ask(BOXES % "svg")) == 6 and all(w > 250 and h > 150 for w, h in tab.ask(BOXES % "svg"))
    assert tab.ask("[...document.images].every(i => i.complete && i.naturalWidth == 224 && i.clientWidth > 100)")
    assert tab.ask("document.documentElement.scrollWidth") <= width
    assert tab.ask(BEYOND) == []


@pytest.mark.parametrize(("width", "dark"), VIEWS)
def test_every_word_can_be_read(tab, page, width, dark):
    tab.open(page.as_uri(), width, dark=dark)
    faint = [entry for entry in tab.ask(CONTRAST) if entry[0] < 4.5]
    assert faint == []
    letters = "[...document.querySelectorAll('svg text')].map(e => e.getBoundingClientRect().height)"
    assert min(tab.ask(letters)) >= 10, "the height of a line of text in pixels"


def test_the_page_is_not_blank_and_dark_is_dark(tab, page):
    pictures = []
    for dark in (False, True):
        tab.open(page.as_uri(), DESK, dark=dark)
        pictures.append(np.asarray(tab.screenshot()).astype(int))
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


def test_what_is_folded_opens_at_a_click_and_links_lead_to_their_sections(tab, page):
    tab.open(page.as_uri(), PHONE)
    before = tab.ask("document.querySelector('details').getBoundingClientRect().height")
    tab.ask("document.querySelector('summary').click()")
    assert tab.ask("document.querySelector('details').getBoundingClientRect().height") > before + 100
    for index in range(tab.ask("document.querySelectorAll('nav a').length")):
        link = f"document.querySelectorAll('nav a')[{index}]"
        assert tab.ask(
            f"document.getElementById({link}.hash.slice(1)).querySelector('h2').textContent == {link}.textContent"
        )


def test_a_request_to_the_outside_would_be_noticed(tab, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text(
        '<!doctype html><img src="http://127.0.0.1:9/x.png"><style>@import "http://127.0.0.1:9/y.css";</style>'
    )
    tab.open(bad.as_uri(), PHONE)
    assert {"http://127.0.0.1:9/x.png", "http://127.0.0.1:9/y.css"} <= set(tab.requests())
    assert tab.complaints()
