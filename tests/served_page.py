"""The web page as it is served: a server in a thread of this process, and tabs of a browser that open it."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from PIL import Image
from playwright.sync_api import Browser, Page

from llava_pose import LlavaPose
from llava_pose.server import ServerSettings, create_app
from tests.browser import PATIENCE, Watch

SAMPLES = Path(__file__).parents[1] / "llava_pose" / "assets" / "samples"
DESK, PHONE = (1280, 900), (390, 844)


@contextlib.contextmanager
def served(**settings: Any) -> Iterator[str]:
    """The address of a server with the embedded model, gone at the end."""
    app = create_app(LlavaPose.from_pretrained(), ServerSettings(**settings))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=5))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + PATIENCE / 1000
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline, "the server does not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


class Visit:
    """A tab on the page, with the words that tests say to it."""

    def __init__(self, tab: Page, address: str) -> None:
        self.tab = tab
        self.address = address
        self.watch = Watch(tab)
        tab.set_default_timeout(PATIENCE)

    def open(self) -> Visit:
        """Open the page and wait until it can be used."""
        self.tab.goto(self.address)
        self.tab.wait_for_selector("html[data-started]")
        return self

    def open_example(self, name: str = "car") -> None:
        """Open an example and wait for its pose."""
        self.tab.get_by_role("button", name=name, exact=True).click()
        self.tab.wait_for_selector("#pose:not([hidden])")

    def ask(self, question: str) -> None:
        """Ask, and wait for the end of the answer."""
        answers = self.tab.locator(".bubble.answer").count()
        self.tab.locator("#question").fill(question)
        self.tab.keyboard.press("Enter")
        self.tab.locator(".bubble.answer:not([aria-busy])").nth(answers).wait_for()

    def hand_over(self, event: str, files: list[tuple[str, bytes, str]]) -> None:
        """Drop or paste files: each its name, bytes and type."""
        given = [[name, base64.b64encode(data).decode(), kind] for name, data, kind in files]
        self.tab.evaluate(
            """([event, files]) => {
              const held = new DataTransfer();
              for (const [name, data, type] of files) {
                const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
                held.items.add(new File([bytes], name, {type}));
              }
              const about = {bubbles: true, cancelable: true};
              document.body.dispatchEvent(event == "paste"
                ? new ClipboardEvent(event, {...about, clipboardData: held})
                : new DragEvent(event, {...about, dataTransfer: held}));
            }""",
            [event, given],
        )

    def place(self, selector: str) -> tuple[float, float, float, float]:
        """Where an element is in the window, once it is in view: left, top, width, height."""
        self.tab.locator(selector).scroll_into_view_if_needed()
        box = self.tab.locator(selector).bounding_box()
        assert box is not None
        return box["x"], box["y"], box["width"], box["height"]

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Draw with the mouse from one point of the window to another."""
        self.tab.mouse.move(*start)
        self.tab.mouse.down()
        self.tab.mouse.move(*end, steps=4)
        self.tab.mouse.up()

    def copied(self) -> Any:
        """What the button of that name brings to the clipboard."""
        self.tab.get_by_role("button", name="Copy as JSON").click()
        self.tab.wait_for_selector("#toast.shown")
        return json.loads(self.tab.evaluate("navigator.clipboard.readText()"))

    def pixels(self, selector: str) -> np.ndarray:
        """The colours (height, width, 4) of a canvas."""
        data = self.tab.evaluate("selector => document.querySelector(selector).toDataURL()", selector)
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))).convert("RGBA")).astype(int)


@contextlib.contextmanager
def visited(chromium: Browser, address: str, size: tuple[int, int] = DESK, **context: Any) -> Iterator[Visit]:
    """A fresh visit at a window's size; at its end, that nothing went wrong that the browser noticed."""
    viewport = {"width": size[0], "height": size[1]}
    opened = chromium.new_context(viewport=viewport, permissions=["clipboard-read", "clipboard-write"], **context)
    visit = Visit(opened.new_page(), address).open()
    yield visit
    assert visit.watch.complaints == []
    assert all(asked.startswith((f"{address}/", "data:", "blob:")) for asked in visit.watch.requests)
    opened.close()
