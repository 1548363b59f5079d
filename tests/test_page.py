"""The web page in a real browser: from a picture to an answer with its axes drawn, by mouse and by keyboard."""

from __future__ import annotations

import base64
import json
import urllib.request

import numpy as np
import pytest

from llava_pose.geometry import project, rotation_matrix
from llava_pose.overlay import AXES, AXIS_CAMERA_DISTANCE
from tests.browser import BEYOND, CONTRAST, browser, needs_browser
from tests.served_page import PHONE, SAMPLES, served, visited

pytestmark = needs_browser
QUESTION = "How far must the car turn to face me?"


@pytest.fixture(scope="module")
def address():
    with served() as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    with browser() as chromium:
        yield chromium


def posted(address, path, body):
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def as_data_url(name):
    return "data:image/jpeg;base64," + base64.b64encode((SAMPLES / name).read_bytes()).decode()


def is_drawn(pixels, color, least):
    """Whether a colour covers at least so many pixels of a canvas."""
    return (np.abs(pixels[..., :3] - color).max(-1) + (pixels[..., 3] < 250) * 999 < 8).sum() >= least


LISTEN = """() => { const ask = window.fetch; window.fetch = async (...about) => {
  const response = await ask(...about);
  if (about[0].endsWith("chat/completions")) window.heard = response.clone().text();
  return response } }"""
"""Keeps what the server answers to a question, besides handing it to the page."""


def test_from_a_picture_to_an_answer_with_its_axes(address, chromium):
    with visited(chromium, address) as visit:
        tab = visit.tab
        visit.open_example()
        car = as_data_url("car.jpg")
        found = posted(address, "/v1/pose", {"image": car})
        assert visit.copied() == found
        assert tab.inner_text("#pose-name").lower().startswith("car ")
        assert tab.inner_text("#pose-words") == found["objects"][0]["words"]
        before = visit.pixels("#overlay")
        assert all(is_drawn(before, color, 200) for _, color in (AXES["front"], AXES["up"]))

        # A box drawn with the mouse is named at once, and its axes are where it is.
        x, y, width, height = visit.place("#frame")
        with tab.expect_response("**/v1/pose") as answered:
            visit.drag((x + 0.3 * width, y + 0.3 * height), (x + 0.9 * width, y + 0.8 * height))
        box = json.loads(answered.value.request.post_data)["boxes"][0]
        assert np.allclose(box, [0.3 * 240, 0.3 * 208, 0.9 * 240, 0.8 * 208], atol=2)
        tab.wait_for_selector("#pose:not([inert])")
        assert visit.copied() == posted(address, "/v1/pose", {"image": car, "boxes": [box]})
        after = visit.pixels("#overlay")
        assert is_drawn(after, AXES["up"][1], 100) and not np.array_equal(before, after)

        tab.get_by_role("button", name="Remove box").click()
        tab.evaluate(LISTEN)
        visit.ask(QUESTION)
        heard = tab.evaluate("window.heard")
        events = [json.loads(line[6:]) for line in heard.splitlines() if line.startswith("data: {")]
        deltas = [choice["delta"] for event in events for choice in event["choices"]]
        content = [{"type": "image_url", "image_url": {"url": car}}, {"type": "text", "text": QUESTION}]
        answer = posted(address, "/v1/chat/completions", {"messages": [{"role": "user", "content": content}]})
        message = answer["choices"][0]["message"]
        assert len(deltas) > 3 and "".join(delta.get("content", "") for delta in deltas) == message["content"]
        [pose] = [pose for delta in deltas for pose in delta.get("poses", [])]
        assert np.allclose(pose["rotation"], message["poses"][0]["rotation"], atol=1e-3)
        said = tab.locator(".bubble.answer").inner_text().split()
        assert said == message["content"].replace("<pose>", pose["chip"]).split()
        assert tab.locator(".chip").inner_text() == pose["chip"]
        assert visit.copied() == {"role": "assistant", "content": message["content"], "poses": [pose]}
        assert message["content"] in tab.inner_text("#live").replace(f"({pose['chip']})", "<pose>").replace("  ", " ")

        # The solid turns with the mouse and comes back; three dials show where each angle lies.
        first = visit.pixels("#gizmo")
        assert all(is_drawn(first, color, 30) for _, color in (AXES["front"], AXES["up"]))
        x, y, *_ = visit.place("#gizmo")
        visit.drag((x + 60, y + 60), (x + 160, y + 90))
        assert (np.abs(visit.pixels("#gizmo") - first).max(-1) > 30).mean() > 0.02
        tab.get_by_role("button", name="Reset view").click()
        assert np.array_equal(visit.pixels("#gizmo"), first)
        assert tab.locator("#dials svg line.read").count() == 3
        assert visit.watch.requests[0] == f"{address}/"


def test_all_of_it_works_from_the_keyboard_and_the_focus_shows(address, chromium):
    with visited(chromium, address) as visit:
        tab, keys = visit.tab, visit.tab.keyboard

        def focused():
            return tab.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")

        def reach(name):
            for _ in range(60):
                keys.press("Tab")
                if focused() == name:
                    shape = "getComputedStyle(document.activeElement).outlineStyle"
                    assert tab.evaluate(shape) == "solid", f"{name}: its focus does not show"
                    return
            raise AssertionError(f"{name} is not reached")

        order = []
        for _ in range(9):
            keys.press("Tab")
            order.append(focused())
        assert order[:5] == ["Skip to the question", "API", "theme", "Choose a photo", "Take a photo"]
        assert order[5:] == ["car", "chair", "motorbike", "teapot"]
        reach("Skip to the question")
        reach("car")
        keys.press("Enter")
        tab.wait_for_selector("#pose:not([hidden])")
        reach("draw-box")
        keys.press("Enter")
        assert focused() == "box" and tab.locator("#pose[inert]").count() == 1
        start = tab.get_attribute("#box", "aria-label")
        assert start.endswith("48, 42 to 192, 166")
        for key in ("ArrowRight", "ArrowDown", "Shift+ArrowRight", "Shift+ArrowUp"):
            keys.press(key)
        assert tab.get_attribute("#box", "aria-label").endswith("53, 47 to 202, 166")
        with tab.expect_response("**/v1/pose") as answered:
            keys.press("Enter")
        assert json.loads(answered.value.request.post_data)["boxes"] == [[53, 47, 202, 166]]
        tab.wait_for_selector("#pose:not([inert])")
        assert tab.inner_text("#live").startswith("car: azimuth")
        keys.press("Delete")
        assert not tab.is_visible("#box") and focused() == "draw-box"
        reach("question")
        keys.type(QUESTION)
        keys.press("Enter")
        tab.wait_for_selector(".chip")
        tab.wait_for_selector("#send:visible")
        keys.press("Shift+Tab")
        while not tab.evaluate("document.activeElement.matches('.chip')"):
            keys.press("Shift+Tab")
        keys.press("Enter")
        assert tab.get_attribute(".chip", "aria-pressed") == "true"
        reach("gizmo")
        first = visit.pixels("#gizmo")
        keys.press("ArrowLeft")
        assert not np.array_equal(visit.pixels("#gizmo"), first)
        keys.press("Home")
        assert np.array_equal(visit.pixels("#gizmo"), first)
        reach("copy")
        keys.press("Enter")
        tab.wait_for_selector("#toast.shown")
        assert json.loads(tab.evaluate("navigator.clipboard.readText()"))["poses"]


def test_it_fits_a_phone_in_the_dark_and_every_word_can_be_read(address, chromium):
    with visited(chromium, address, PHONE, color_scheme="dark", has_touch=True, is_mobile=True) as visit:
        tab = visit.tab
        for act in (lambda: None, visit.open_example, lambda: visit.ask(QUESTION)):
            act()
            assert tab.evaluate("document.documentElement.scrollWidth") == PHONE[0]
            assert tab.evaluate(BEYOND) == []
            shown = tab.evaluate(CONTRAST)
            assert len(shown) > 10 and [each for each in shown if each[0] < 4.5] == []
        small = """[...document.querySelectorAll('button, textarea')].filter(e => e.checkVisibility())
            .map(e => [e.getBoundingClientRect().height, e.textContent]).filter(([height]) => height < 24)"""
        assert tab.evaluate(small) == []
        assert min(tab.evaluate("getComputedStyle(document.body).backgroundColor").strip("rgb()").split(", ")) < "30"


NASTY = "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>"


def test_nothing_that_is_said_or_named_becomes_html(address, chromium):
    pose = posted(address, "/v1/pose", {"image": as_data_url("car.jpg")})["objects"][0]
    words = {"category": NASTY, "chip": NASTY, "words": NASTY, "text": NASTY}
    pose = {**pose, **words, "alternative": {**pose, "probability": 0.3, "turn": 3.0, "text": NASTY}}
    chunk = {"choices": [{"delta": {"content": f"{NASTY} <pose> {NASTY}", "poses": [pose]}, "finish_reason": "stop"}]}
    with visited(chromium, address) as visit:
        tab = visit.tab
        tab.route("**/v1/pose", lambda route: route.fulfill(json={"objects": [pose, pose]}))
        stream = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
        tab.route("**/v1/chat/completions", lambda route: route.fulfill(body=stream, content_type="text/event-stream"))
        elements = tab.evaluate("document.querySelectorAll('img').length")
        visit.hand_over("drop", [(f"{NASTY}.jpg", (SAMPLES / "car.jpg").read_bytes(), "image/jpeg")])
        tab.wait_for_selector("#pose:not([hidden])")
        visit.ask(NASTY)
        tab.locator("#other").click()
        assert tab.locator(".chip").inner_text() == NASTY
        assert NASTY in tab.inner_text(".bubble.question") and NASTY in tab.inner_text("#suggestions")
        tab.route("**/v1/pose", lambda route: route.fulfill(status=400, json={"error": {"message": NASTY}}))
        tab.get_by_role("button", name="Name it").click()
        tab.wait_for_function("nasty => document.querySelector('#notice').textContent == nasty", arg=NASTY)
        assert tab.title() == "LLaVA-pose" and tab.locator("script").count() == 2
        assert tab.evaluate("document.querySelectorAll('img').length") == elements + 1, "the question's own thumbnail"
        visit.watch.complaints.clear()  # that the refusal was a 400


def test_axes_are_drawn_where_the_library_projects_them(address, chromium):
    poses = np.random.default_rng(0).uniform(-np.pi, np.pi, (20, 3))
    with visited(chromium, address) as visit:
        drawn = visit.tab.evaluate(
            "async rotations => { const {arrows} = await import('/web/draw.js');"
            "return rotations.map(rotation => arrows(rotation, [300, 200], 90)) }",
            rotation_matrix(poses).tolist(),
        )
    points = np.array([direction for direction, _ in AXES.values()], dtype=float)
    for pose, arrows in zip(poses, drawn, strict=True):
        tips = project(points, pose, AXIS_CAMERA_DISTANCE, 90 * AXIS_CAMERA_DISTANCE, (300, 200))
        found = {arrow["name"]: arrow for arrow in arrows}
        assert np.allclose([found[name]["tip"] for name in AXES], tips, atol=1e-9)
        assert [found[name]["color"] for name in AXES] == [list(color) for _, color in AXES.values()]
