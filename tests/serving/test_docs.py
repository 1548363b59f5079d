"""The API's description: complete, and a page that works without a network."""

from __future__ import annotations

import re
from typing import Any

import pytest

from llava_pose import LlavaPose
from tests import browser
from tests.serving.running import Served, asked, serving


@pytest.fixture(scope="module")
def described(server: Served) -> dict[str, Any]:
    return server.get("/openapi.json").json()


def test_every_route_is_described_with_its_refusals(described: dict[str, Any]) -> None:
    paths = described["paths"]
    assert set(paths) == {"/v1/chat/completions", "/v1/pose", "/v1/models", "/health", "/metrics"}
    for path in ("/v1/chat/completions", "/v1/pose"):
        answers = paths[path]["post"]["responses"]
        assert {"200", "400", "401", "403", "408", "413", "415", "429", "500", "503", "504"} == set(answers) - {"404"}
        for status, answer in answers.items():
            if status != "200":
                assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorAnswer")
    stream = paths["/v1/chat/completions"]["post"]["responses"]["200"]["content"]
    assert set(stream) == {"application/json", "text/event-stream"}


def test_the_poses_of_an_answer_are_a_documented_field(described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    assert schemas["AnswerMessage"]["properties"]["poses"]["items"]["$ref"].endswith("/Pose")
    fields = {"category", "class_probability", "azimuth", "elevation", "theta", "confidence", "expected_error"}
    fields |= {"alternative", "calibrated", "box", "words", "text", "chip", "rotation", "distributions"}
    assert set(schemas["Pose"]["properties"]) >= fields
    assert all(schema.get("description") for name, schema in schemas.items() if name != "ErrorAnswer")


def test_answers_have_exactly_the_described_fields(server: Served, described: dict[str, Any]) -> None:
    schemas = described["components"]["schemas"]
    answer = server.post("/v1/chat/completions", {"messages": asked()}).json()
    assert set(answer) == set(schemas["ChatAnswer"]["properties"])
    message = answer["choices"][0]["message"]
    assert set(message) == set(schemas["AnswerMessage"]["properties"])
    assert set(message["poses"][0]) == set(schemas["Pose"]["properties"])


def test_a_key_is_described_where_one_is_needed(model: LlavaPose, described: dict[str, Any]) -> None:
    assert "securitySchemes" not in described["components"]
    with serving(model, api_key="a-key-that-nobody-guesses") as locked:
        own = locked.get("/openapi.json").json()
    assert own["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert own["paths"]["/v1/pose"]["post"]["security"] and "security" not in own["paths"]["/health"]["get"]


def test_the_page_loads_nothing_from_elsewhere_and_runs_only_files(server: Served) -> None:
    page = server.get("/docs")
    found = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert all(not re.match(r"(?:https?:)?//", each) for each in found)
    assert not re.search(r"<script(?![^>]*src=)", page.text) and "onclick" not in page.text
    assert "script-src 'self';" in page.headers["content-security-policy"]
    for each in found:
        assert each.startswith("data:") or server.get(f"/{each}").status_code == 200


@pytest.mark.slow
@pytest.mark.skipif(browser.executable() is None, reason="needs Chromium")
def test_a_browser_shows_every_route(server: Served) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser.executable(), args=["--no-sandbox"])
        page = chromium.new_page()
        asked_for: list[str] = []
        complaints: list[str] = []
        page.on("request", lambda request: asked_for.append(request.url))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(f"{server.url}/docs")
        page.wait_for_selector(".opblock", timeout=60_000)
        shown = page.locator(".opblock-summary-path").all_inner_texts()
        chromium.close()
    assert {re.sub("\u200b", "", path) for path in shown} >= {"/v1/pose", "/v1/chat/completions", "/health"}
    assert all(url.startswith((server.url, "data:")) for url in asked_for)
    assert complaints == []
