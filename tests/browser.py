"""A real browser without a window, for tests of pages, and what tests ask of every page."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60_000
"""Milliseconds that anything may take: machines that test are busy."""


def executable() -> str | None:
    """The browser on this machine, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


needs_browser = pytest.mark.skipif(executable() is None, reason=f"no browser: none of {', '.join(NAMES)} is installed")


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser with a camera that needs no hardware, gone at the end."""
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=executable(), args=["--disable-gpu", "--disable-quic", *camera]
        )
        yield launched
        launched.close()


class Watch:
    """What a page asked for, and what the browser found wrong with it."""

    def __init__(self, page: Page) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda said: said.type in ("error", "warning") and self.complaints.append(said.text))


BEYOND = """[...document.querySelectorAll('body *')].filter(e => {
  const {right, width} = e.getBoundingClientRect();
  return width > 1 && right > innerWidth + 1 && !e.closest('.wide');
}).map(e => e.outerHTML.slice(0, 80))"""
"""What sticks out of the page to the right."""

CONTRAST = """(() => {
  const parts = c => c.startsWith('color(') ? c.match(/[\\d.]+/g).map(Number)
      : c.match(/[\\d.]+/g).map((v, i) => i < 3 ? v / 255 : Number(v));
  const light = c => { const [r, g, b] = parts(c)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b };
  const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
      if ((parts(c)[3] ?? 1) > 0.9) return c } };
  const words = 'h1, h2, h3, p, a, td, th, dt, dd, small, b, span, figcaption, summary, text, button, label';
  return [...document.querySelectorAll(words)]
    .filter(e => e.checkVisibility() && !e.disabled && [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()))
    .map(e => { const style = getComputedStyle(e);
      const ink = light(e.tagName == 'text' ? style.fill : style.color), page = light(behind(e));
      return [(Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05), e.outerHTML.slice(0, 80)] });
})()"""
"""Every word that shows, and its contrast with what is behind it."""
