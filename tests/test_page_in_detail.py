"""What the web page does beyond the one straight way through it: conversations, refusals, doubts, looks."""

from __future__ import annotations

import json
import socket
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from llava_pose.bins import PoseBins
from llava_pose.overlay import AXES
from llava_pose.serving.foyer import foyer
from llava_pose.serving.settings import ServerSettings
from tests.browser import BEYOND, CONTRAST, browser, needs_browser
from tests.served_page import DESK, SAMPLES, served, visited

pytestmark = [needs_browser, pytest.mark.slow]
QUESTION = "How far must the car turn to face me?"


@pytest.fixture(scope="module")
def address():
    with served() as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    with browser() as chromium:
        yield chromium


SLOWLY = """() => { const ask = window.fetch; window.fetch = (path, about) => {
  if (!path.endsWith("chat/completions")) return ask(path, about);
  const words = new TextEncoder();
  const body = new ReadableStream({start(flow) {
    window.say = (delta, finish_reason = null) => flow.enqueue(words.encode(
      `data: ${JSON.stringify({choices: [{delta, finish_reason}]})}\\n\\n`));
    window.hush = () => flow.close();
    about.signal.addEventListener("abort", () => { window.aborted = true; flow.error(about.signal.reason) });
  }});
  window.asked = JSON.parse(about.body);
  return Promise.resolve(new Response(body)); } }"""
"""Puts a server in the page that says what the test has it say, when the test does."""


@pytest.mark.parametrize("way", ["Escape", "Stop"])
def test_an_answer_grows_as_it_comes_and_can_be_stopped(address, chromium, way):
    with visited(chromium, address) as visit:
        tab = visit.tab
        visit.open_example()
        tab.evaluate(SLOWLY)
        pose = {**visit.copied()["objects"][0], "class_probability": None}
        tab.locator("#question").fill("Which way?")
        tab.keyboard.press("Enter")
        tab.wait_for_function("() => window.say")
        tab.evaluate("say({content: 'The car'})")
        tab.wait_for_function("() => document.querySelector('.bubble.answer').textContent == 'The car'")
        tab.evaluate("pose => say({content: ' <pose>', poses: [pose]})", pose)
        tab.locator(".chip").focus()
        tab.evaluate("say({content: ' turns <po'})")
        tab.wait_for_function("() => document.querySelector('.bubble.answer').textContent.endsWith(' turns ')")
        assert tab.evaluate("document.activeElement.matches('.chip')"), "the focus stays while the answer grows"
        if way == "Escape":
            tab.keyboard.press(way)
        else:
            tab.get_by_role("button", name=way).click()
        tab.wait_for_selector("#send:visible")
        assert tab.evaluate("window.aborted") and tab.inner_text(".bubble.answer").endswith("stopped")
        # What was stopped is not part of the conversation: the picture is sent anew.
        tab.evaluate("delete window.say")
        tab.locator("#question").fill("Again?")
        tab.keyboard.press("Enter")
        tab.wait_for_function("() => window.say")
        [message] = tab.evaluate("window.asked.messages")
        assert [part["type"] for part in message["content"]] == ["image_url", "text"]
        tab.evaluate("say({content: 'Left.'}), say({}, 'length'), hush()")
        tab.wait_for_selector("#send:visible")
        assert tab.locator(".bubble.answer").nth(1).inner_text().endswith("cut short")
        tab.locator("#question").fill("And then?")
        tab.evaluate("delete window.say")
        tab.keyboard.press("Enter")
        tab.wait_for_function("() => window.say")
        roles = [message["role"] for message in tab.evaluate("window.asked.messages")]
        assert roles == ["user", "assistant", "user"]
        assert tab.evaluate("window.asked.messages[1].content") == "Left."
        tab.evaluate("hush()")
        tab.wait_for_selector(".failed")
        assert tab.inner_text("#notice") == "The server broke off its answer."


def test_a_box_or_another_picture_begins_a_new_conversation_and_an_added_one_goes_on(address, chromium):
    with visited(chromium, address) as visit:
        tab = visit.tab
        tab.evaluate(SLOWLY)

        def parts():
            tab.evaluate("delete window.say")
            tab.locator("#question").fill("Well?")
            tab.keyboard.press("Enter")
            tab.wait_for_function("() => window.say")
            tab.evaluate("say({content: 'Yes.'}), say({}, 'stop'), hush()")
            tab.wait_for_selector("#send:visible")
            users = [m["content"] for m in tab.evaluate("window.asked.messages") if m["role"] == "user"]
            return [[part.get("box", part["type"]) for part in content] for content in users]

        visit.open_example()
        assert parts() == [["image_url", "text"]]
        assert parts() == [["image_url", "text"], ["text"]]
        with tab.expect_file_chooser() as chooser:
            tab.get_by_role("button", name="Add a picture").click()
        chooser.value.set_files(SAMPLES / "chair.jpg")
        tab.wait_for_function("() => /chair/i.test(document.querySelector('#pose-name').textContent)")
        assert parts() == [["image_url", "text"], ["text"], ["image_url", "text"]]
        tab.locator("#tray button").first.click()
        tab.get_by_role("button", name="Draw a box").click()
        box = tab.evaluate("document.querySelector('#box').getAttribute('aria-label').match(/\\d+/g).map(Number)")
        assert parts() == [[box, "image_url", "text"]]
        assert tab.locator(".divider").count() == 1
        visit.hand_over("paste", [("motorbike.jpg", (SAMPLES / "motorbike.jpg").read_bytes(), "image/jpeg")])
        tab.wait_for_function("() => /motorbike/i.test(document.querySelector('#pose-name').textContent)")
        assert parts() == [["image_url", "text"]]
        assert tab.locator(".divider").count() == 2
        tab.get_by_role("button", name="Start anew").click()
        assert tab.is_visible("#welcome") and tab.locator(".bubble").count() == 0


def test_a_key_is_asked_for_kept_in_this_tab_alone_and_a_wrong_one_is_told(chromium):
    key = "a-key-for-tests-only"
    with served(api_key=key) as address, visited(chromium, address) as visit:
        tab = visit.tab
        tab.get_by_role("button", name="car", exact=True).click()
        tab.wait_for_selector("#key-dialog[open]")
        assert not tab.is_visible("#key-problem")
        tab.locator("#key").fill("wrong")
        tab.keyboard.press("Enter")
        tab.wait_for_selector("#key-problem:visible")
        tab.locator("#key").fill(key)
        tab.get_by_role("button", name="Use it").click()
        tab.wait_for_selector("#pose:not([hidden])")
        visit.ask(QUESTION)
        assert tab.locator(".chip").count() == 1
        assert key in tab.evaluate("JSON.stringify({...sessionStorage})")
        assert key not in tab.evaluate("JSON.stringify({...localStorage}) + document.cookie + location.href")
        tab.evaluate("sessionStorage.clear()")
        tab.get_by_role("button", name="Name it").click()
        tab.wait_for_selector("#key-dialog[open]")
        tab.locator("#key-close").click()
        tab.wait_for_selector("#notice:not([hidden])")
        assert tab.inner_text("#notice").startswith("The server refused the key")
        visit.watch.complaints.clear()  # each refusal is a 401 in the browser's own log


def test_the_servers_refusals_are_told_in_words_and_a_busy_one_is_asked_again(address, chromium):
    with visited(chromium, address) as visit:
        tab, waits = visit.tab, []
        visit.open_example()

        def busy_at_first(route):
            waits.append(route)
            if len(waits) < 3:
                route.fulfill(status=429, headers={"Retry-After": "1"}, json={"error": {"message": "too many"}})
            else:
                route.continue_()

        tab.route("**/v1/pose", busy_at_first)
        tab.get_by_role("button", name="Name it").click()
        tab.wait_for_selector("#toast.shown")
        assert tab.inner_text("#toast") == "The server is busy: trying again in 1 s"
        tab.wait_for_selector("#name:not([aria-busy])")
        assert len(waits) == 3 and not tab.is_visible("#notice")
        tab.unroute("**/v1/pose")

        def refusing(status):
            return lambda route: route.fulfill(status=status, json={"error": {"message": "the body is 9 bytes"}})

        told = [
            (413, "This is too large for the server: the body is 9 bytes"),
            (400, "the body is 9 bytes"),
            (500, "The server failed (500): the body is 9 bytes"),
        ]
        for status, words in told:
            tab.route("**/v1/chat/completions", refusing(status))
            tab.locator("#question").fill("Well?")
            tab.keyboard.press("Enter")
            tab.wait_for_function("words => document.querySelector('#notice').textContent == words", arg=words)
            tab.unroute("**/v1/chat/completions")
        tab.route("**/v1/chat/completions", lambda route: route.abort())
        tab.get_by_role("button", name="Try again").last.click()
        tab.wait_for_function("() => document.querySelector('#notice').textContent.includes('cannot be reached')")
        tab.unroute("**/v1/chat/completions")
        tab.get_by_role("button", name="Try again").last.click()
        tab.wait_for_selector(".bubble.answer:not([aria-busy])")
        assert not tab.is_visible("#notice")
        visit.watch.complaints.clear()  # the browser's own log of the refusals


def test_too_large_a_body_is_told_by_the_real_server(chromium):
    with served(max_body_bytes=2000) as address, visited(chromium, address) as visit:
        visit.tab.get_by_role("button", name="car", exact=True).click()
        visit.tab.wait_for_selector("#notice:not([hidden])")
        assert visit.tab.inner_text("#notice").startswith("This is too large for the server: the body is larger than")
        visit.watch.complaints.clear()


def test_a_chip_shows_its_own_axes_and_the_other_pose_can_be_seen(address, chromium):
    with visited(chromium, address) as visit:
        tab = visit.tab
        visit.open_example()
        first = visit.copied()["objects"][0]
        rotation = np.array(first["rotation"])
        turned = (np.diag([-1.0, 1.0, -1.0]) @ rotation).tolist()
        other = {"azimuth": 1.0, "elevation": 0.1, "theta": 0.0, "probability": 0.31, "turn": 3.1}
        shares = [0.02] * 40
        other |= {"text": "azimuth 57°, elevation 6°, theta 0°", "rotation": first["rotation"]}
        poses = [{**first, "chip": "one"}, {**first, "chip": "two", "rotation": turned, "alternative": other}]
        poses[1] |= {"calibrated": False, "distributions": dict.fromkeys(("azimuth", "elevation", "theta"), shares)}
        tab.evaluate(SLOWLY)
        tab.locator("#question").fill("Well?")
        tab.keyboard.press("Enter")
        tab.wait_for_function("() => window.say")
        tab.evaluate("poses => say({content: 'A <pose> and a <pose>.', poses})", poses)
        tab.evaluate("say({}, 'stop'), hush()")
        tab.wait_for_selector("#send:visible")
        assert tab.inner_text("#pose-choice").split("\n") == ["1 car", "2 car"]
        assert "not calibrated" in tab.inner_text("#facts") and "31%" in tab.inner_text("#facts")
        second = visit.pixels("#overlay")
        tab.locator(".chip").first.hover()
        hovered = visit.pixels("#overlay")
        assert not np.array_equal(hovered, second) and "calibrated: fitted" in tab.inner_text("#facts")
        # The pose that is meant is opaque in its half of the picture, the other one pale.
        half = hovered.shape[1] // 2
        red = (np.abs(hovered[..., :3] - AXES["front"][1]).max(-1) < 12) & (hovered[..., 3] > 250)
        assert red[:, :half].sum() > 100 > red[:, half:].sum()
        tab.mouse.move(5, 5)
        assert np.array_equal(visit.pixels("#overlay"), second)
        solid = visit.pixels("#gizmo")
        tab.locator("#other").focus()
        tab.keyboard.press("Enter")
        assert tab.evaluate("document.activeElement.id") == "other"
        assert not np.array_equal(visit.pixels("#gizmo"), solid)
        assert not np.array_equal(visit.pixels("#overlay"), second)
        tab.keyboard.press("Enter")
        assert np.array_equal(visit.pixels("#gizmo"), solid)


def test_the_second_mode_of_a_dial_is_that_of_its_distribution(address, chromium):
    bins = PoseBins()
    rng = np.random.default_rng(1)

    def hill(angle, mass):
        return mass * bins.soft_targets(np.array([angle, 0.0, 0.0]))[0]

    with visited(chromium, address) as visit:
        visit.open_example()
        second = "shares => import('/web/dials.js').then(({secondMode}) => secondMode(shares))"
        for _ in range(30):
            angle, apart, mass = rng.uniform(0, 2 * np.pi), rng.uniform(1.6, 4.6), rng.uniform(0.05, 0.45)
            shares = hill(angle, 1 - mass) + hill(angle + apart, mass)
            found = visit.tab.evaluate(second, shares.tolist())
            assert found["mass"] == pytest.approx(mass, abs=0.01)
            assert abs(np.angle(np.exp(1j * (found["angle"] - angle - apart)))) < 0.03
        for none in (hill(2.0, 1.0), hill(2.0, 0.99) + hill(5.0, 0.01)):
            assert visit.tab.evaluate(second, none.tolist()) is None
        dial = "shares => import('/web/dials.js').then(({dial}) => dial('azimuth', 1.0, shares).picture.outerHTML)"
        assert visit.tab.evaluate(dial, (hill(1.0, 0.7) + hill(4.0, 0.3)).tolist()).count('class="second"') == 2
        assert "one mode" in visit.tab.evaluate(dial, hill(1.0, 1.0).tolist())


def test_the_picture_can_be_downloaded_with_its_axes_and_the_json_read_where_no_clipboard_is(address, chromium):
    with visited(chromium, address) as visit:
        tab = visit.tab
        visit.open_example()
        with tab.expect_download() as download:
            tab.get_by_role("button", name="Download the picture").click()
        assert download.value.suggested_filename == "car-axes.png"
        picture = Image.open(download.value.path()).convert("RGB")
        assert picture.width == 560 and picture.height > 485 + 40
        pixels = np.asarray(picture).astype(int)
        for _, color in AXES.values():
            assert (np.abs(pixels[:485] - color).max(-1) < 60).sum() > 100
        tab.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
        tab.get_by_role("button", name="Copy as JSON").click()
        tab.wait_for_selector("#copy-dialog[open]")
        assert json.loads(tab.input_value("#copy-text"))["objects"][0]["category"] == "car"
        tab.keyboard.press("Escape")
        assert not tab.is_visible("#copy-dialog")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_follow_the_system_until_they_are_chosen(address, chromium, scheme):
    brightness = """() => { const c = getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number);
      return (c[0] + c[1] + c[2]) / 3 }"""
    with visited(chromium, address, DESK, color_scheme=scheme) as visit:
        tab = visit.tab
        visit.open_example()
        visit.ask(QUESTION)
        for pressed in (0, 1):
            assert (tab.evaluate(brightness) > 128) == ((scheme == "light") != bool(pressed))
            assert [each for each in tab.evaluate(CONTRAST) if each[0] < 4.5] == []
            solid = visit.pixels("#gizmo")
            tab.locator("#theme").click()
        assert not np.array_equal(visit.pixels("#gizmo"), solid), "the solid is drawn in the colours chosen"
        tab.locator("#theme").click()
        visit.open()
        assert (tab.evaluate(brightness) > 128) == (scheme == "dark"), "the choice is remembered"


@pytest.mark.parametrize("width", [320, 390, 620, 900, 901, 1280, 1920])
def test_nothing_sticks_out_at_any_width(address, chromium, width):
    with visited(chromium, address, (width, 800)) as visit:
        for act in (lambda: None, lambda: visit.open_example("motorbike"), lambda: visit.ask("What is this?")):
            act()
            assert visit.tab.evaluate("document.documentElement.scrollWidth") <= width
            assert visit.tab.evaluate(BEYOND) == []


def test_the_page_opens_while_the_model_loads_and_goes_on_once_it_has(address, chromium):
    ready = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as door:
        waiting = f"http://127.0.0.1:{door.getsockname()[1]}"
        with foyer(door, ServerSettings()), visited(chromium, waiting) as visit:
            tab = visit.tab
            tab.wait_for_selector("#status[data-state=loading]:text('loading')")
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"{waiting}/health")
            assert refused.value.code == 503 and refused.value.headers["Retry-After"] == "1"
            refused.value.close()

            def pass_on(route):
                if not ready.is_set():
                    return route.continue_()
                path, body = route.request.url.removeprefix(waiting), route.request.post_data_buffer
                asked = urllib.request.Request(f"{address}{path}", body, {"Content-Type": "application/json"})
                with urllib.request.urlopen(asked) as answer:
                    return route.fulfill(status=answer.status, body=answer.read(), content_type="application/json")

            tab.route("**/v1/pose", pass_on)
            tab.route("**/health", pass_on)
            tab.get_by_role("button", name="car", exact=True).click()
            tab.wait_for_selector("#toast.shown")
            assert "loading" in tab.inner_text("#toast")
            ready.set()
            tab.wait_for_selector("#pose:not([hidden])")
            tab.wait_for_selector("#status[data-state=ready]")
            visit.watch.complaints.clear()  # the browser's own log of each 503
