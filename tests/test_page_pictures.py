"""Every way by which a picture and a box get into the web page, and that they arrive as they were meant."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.browser import browser, needs_browser
from tests.served_page import PHONE, SAMPLES, served, visited

pytestmark = [needs_browser, pytest.mark.slow]
CAR = (SAMPLES / "car.jpg").read_bytes()


@pytest.fixture(scope="module")
def address():
    with served() as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    with browser() as chromium:
        yield chromium


def sent_picture(request):
    """The picture of a request for a pose."""
    data = json.loads(request.post_data)["image"].partition(",")[2]
    return base64.b64decode(data)


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_pictures_come_by_drop_and_by_paste_and_what_is_no_picture_is_told(address, chromium, way):
    with visited(chromium, address) as visit:
        with visit.tab.expect_request("**/v1/pose") as asked:
            visit.hand_over(way, [("car.jpg", CAR, "image/jpeg"), ("same.jpg", CAR, "image/jpeg")])
        assert sent_picture(asked.value) == CAR, "a small file goes as it is"
        visit.tab.wait_for_selector("#pose:not([hidden])")
        assert visit.tab.locator("#tray button").count() == 2
        visit.hand_over(way, [("broken.png", b"no picture", "image/png")])
        visit.tab.wait_for_selector("#notice:not([hidden])")
        assert visit.tab.inner_text("#notice") == "broken.png: this browser cannot open it as a picture."
        assert visit.tab.is_visible("#pose"), "what was open stays"


def test_pictures_come_from_the_file_chooser_and_from_the_camera(address, chromium):
    with visited(chromium, address) as visit:
        tab = visit.tab
        with tab.expect_file_chooser() as chooser:
            tab.get_by_role("button", name="Choose a photo").click()
        chooser.value.set_files(SAMPLES / "chair.jpg")
        tab.wait_for_selector("#pose:not([hidden])")
        assert tab.inner_text("#pose-name").lower().startswith("chair")
        tab.context.grant_permissions(["camera"])
        tab.get_by_role("button", name="Camera").click()
        tab.wait_for_function("() => document.querySelector('#video').videoWidth > 0")
        with tab.expect_request("**/v1/pose") as asked:
            tab.get_by_role("button", name="Take it").click()
        assert Image.open(io.BytesIO(sent_picture(asked.value))).width > 300
        assert not tab.is_visible("#camera-dialog")
        assert tab.evaluate(
            "document.querySelector('#video').srcObject.getTracks().every(t => t.readyState == 'ended')"
        )
        assert tab.get_attribute("#capture", "capture") == "environment"


@pytest.mark.parametrize(("size", "expected"), [((300, 200), (200, 300)), ((4000, 2000), (800, 1600))])
def test_photos_are_upright_and_large_ones_are_made_smaller_before_they_go(address, chromium, size, expected):
    # Stored lying on its side: its left half is red, so upright its top half is.
    picture = Image.new("RGB", size, (20, 60, 200))
    picture.paste((220, 30, 30), (0, 0, size[0] // 2, size[1]))
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn a quarter clockwise to see it upright
    stream = io.BytesIO()
    picture.save(stream, "JPEG", exif=exif, quality=95)
    with visited(chromium, address) as visit:
        with visit.tab.expect_response("**/v1/pose") as answered:
            visit.hand_over("drop", [("photo.jpg", stream.getvalue(), "image/jpeg")])
        assert answered.value.ok
        sent = Image.open(io.BytesIO(sent_picture(answered.value.request)))
        orientation = sent.getexif().get(0x0112, 1)
        assert (orientation == 6 and sent.size == size) if max(size) < 1600 else (orientation == 1)
        shown = "[document.querySelector('#picture').naturalWidth, document.querySelector('#picture').naturalHeight]"
        assert tuple(visit.tab.evaluate(shown)) == expected
        x, y, width, height = visit.place("#frame")
        assert width / height == pytest.approx(expected[0] / expected[1], rel=0.01)
        visit.tab.wait_for_selector("#pose:not([hidden])")
        # A box in the upright picture's lower right corner: one that only the upright picture has room for.
        with visit.tab.expect_response("**/v1/pose") as answered:
            visit.drag((x + 0.5 * width, y + 0.7 * height), (x + 0.98 * width, y + 0.98 * height))
        assert answered.value.ok
        box = json.loads(answered.value.request.post_data)["boxes"][0]
        assert np.allclose(box, np.array([0.5, 0.7, 0.98, 0.98]) * [*expected, *expected], rtol=0.02)


def test_a_finger_draws_a_box_once_it_is_asked_for_and_scrolls_otherwise(address, chromium):
    with visited(chromium, address, PHONE, has_touch=True, is_mobile=True) as visit:
        tab = visit.tab
        visit.open_example()
        touch = tab.context.new_cdp_session(tab)

        def swipe():
            x, y, width, height = visit.place("#frame")
            start, end = (x + 0.2 * width, y + 0.9 * height), (x + 0.8 * width, y + 0.2 * height)
            steps = [tuple(a + (b - a) * i / 5 for a, b in zip(start, end, strict=True)) for i in range(6)]
            point = [{"x": steps[0][0], "y": steps[0][1]}]
            touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": point})
            for px, py in steps[1:]:
                touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": px, "y": py}]})
            touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

        swipe()
        tab.wait_for_function("() => scrollY > 50")
        assert not tab.is_visible("#box")
        tab.get_by_role("button", name="Draw a box").click()
        # The finger's scrolling may go on for a while, and a click scrolls to what it clicks: up again, until it stays.
        stays = "() => new Promise(tell => { scrollTo(0, 0); setTimeout(() => tell(scrollY == 0), 300); })"
        tab.wait_for_function(stays)
        with tab.expect_request("**/v1/pose") as asked:
            swipe()
        [box] = json.loads(asked.value.post_data)["boxes"]
        assert np.allclose(box, np.array([0.2, 0.2, 0.8, 0.9]) * [240, 208, 240, 208], atol=3)
        assert tab.get_attribute("#draw-box", "aria-pressed") == "false"
