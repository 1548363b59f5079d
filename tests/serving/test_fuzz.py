"""Requests that nobody thought of: whatever is sent, no mistake of the server's, and answers as they are described."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode, checks

from llava_pose import LlavaPose
from tests.serving.running import CAR, Served, asked, picture_part, serving

ROUTES = ["/v1/chat/completions", "/v1/pose", "/v1/models", "/health", "/metrics"]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        "messages": asked("Hello", picture_part(box=[9, 9, 99, 99])),
        "max_tokens": 2,
        "stop": ["x"],
    },
    "/v1/pose": {"image": CAR, "boxes": [[9, 9, 99, 99]], "categories": ["car", "sofa"]},
}

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)
odd = st.sampled_from(["", "<pose>", "data:image/png;base64,", "\ud800", "\0", 1e308, -1, 2**70, [], {}, [[]], None])


@pytest.fixture(scope="module")
def short(model: LlavaPose) -> Iterator[Served]:
    with serving(model, max_new_tokens=4) as served:
        yield served


@st.composite
def changed(draw: st.DrawFn, body: Any) -> Any:
    """A body with one value in it, at any depth, left out or replaced."""
    if not isinstance(body, (dict, list)) or not body or draw(st.integers(0, 3)) == 0:
        return draw(anything | odd)
    places = sorted(body) if isinstance(body, dict) else list(range(len(body)))
    place = draw(st.sampled_from(places))
    made = dict(body) if isinstance(body, dict) else list(body)
    if draw(st.integers(0, 4)) == 0:
        del made[place]
    else:
        made[place] = draw(changed(body[place]))
    return made


@pytest.mark.parametrize("path", sorted(BODIES))
@settings(
    max_examples=25, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(data=st.data())
def test_a_request_with_anything_wrong_in_it_is_answered_or_refused_in_openais_form(
    short: Served, path: str, data: st.DataObject
) -> None:
    body = json.dumps(data.draw(changed(BODIES[path])))
    with short.client() as client:
        response = client.post(path, content=body.encode(), headers={"Content-Type": "application/json"})
    assert response.status_code in (200, 400, 404), (body, response.text)
    if response.status_code != 200:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("route", "mode"),
    [*((route, GenerationMode.POSITIVE) for route in ROUTES), *((route, GenerationMode.NEGATIVE) for route in BODIES)],
)
def test_schemathesis_finds_nothing_that_contradicts_the_description(
    short: Served, route: str, mode: GenerationMode
) -> None:
    [operation] = [
        found.ok() for found in schemathesis.openapi.from_url(f"{short.url}/openapi.json").get_all_operations()
        if found.ok().path == route
    ]  # fmt: skip
    tried: list[int] = []

    @settings(
        max_examples=150, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(operation.as_strategy(generation_mode=mode))
    def run(case: schemathesis.Case) -> None:
        body = case.body
        if mode is GenerationMode.POSITIVE and isinstance(body, dict) and len(tried) % 2:
            # Now and then with a picture and a model that exist, so that not everything ends there.
            body.update({"image": CAR} if "image" in body else {"model": "llava-pose"} if "model" in body else {})
        if mode is GenerationMode.POSITIVE and route == "/v1/chat/completions":
            body["stream"] = len(tried) % 4 == 1  # events are described, too
        tried.append(case.call_and_validate(checks=[checks.CHECKS.get_one(name) for name in CHECKS]).status_code)

    run()
    assert route not in BODIES or (set(tried) > {400} if mode is GenerationMode.POSITIVE else 200 not in tried)
