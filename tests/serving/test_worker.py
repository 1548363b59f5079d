"""Many requests at once: done together, kept within bounds, given up with their clients, drained at the end."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from llava_pose import LlavaPose, server
from llava_pose.engine import Engine
from llava_pose.generation import Answering, Request
from llava_pose.serving.metrics import Metrics
from llava_pose.serving.worker import Worker
from tests.serving.running import (
    CAR,
    PATIENCE,
    SAMPLES,
    TURN,
    Gate,
    Served,
    asked,
    data_url,
    picture_part,
    refusal,
    serving,
    until,
)

CHAT, POSE = "/v1/chat/completions", "/v1/pose"
QUESTIONS = [TURN, "Which way is the car facing?", "What is this?", "Describe the picture."]


@pytest.fixture
def pool() -> Any:
    with ThreadPoolExecutor(16) as made:
        yield made


def send(pool: ThreadPoolExecutor, served: Served, path: str, body: Any) -> Future[httpx.Response]:
    return pool.submit(served.post, path, body)


def told(response: httpx.Response) -> str:
    return response.json()["choices"][0]["message"]["content"]


def hang_up(served: Served, path: str, body: Any, when: Callable[[], bool], answered: bytes = b"") -> None:
    """Send a request and hang up, once so much is answered and a condition holds."""
    address = urlsplit(served.url)
    sent = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(sent)}"
    with socket.create_connection((address.hostname, address.port), PATIENCE) as connection:
        connection.sendall(head.encode() + b"\r\n\r\n" + sent)
        seen = b""
        while answered not in seen:
            more = connection.recv(65536)
            assert more, seen
            seen += more
        until(when)


def test_conversations_that_gather_are_answered_together_each_as_if_alone(
    gate: Gate, pool: ThreadPoolExecutor, model: LlavaPose
) -> None:
    pictures = [picture_part(data_url(SAMPLES / f"{name}.jpg")) for name in ("car", "chair", "teapot")]
    bodies = [{"messages": asked(text, picture)} for text in QUESTIONS for picture in pictures]
    with serving(model) as served:
        waiting = [send(pool, served, CHAT, body) for body in bodies]
        until(lambda: served.places.held == len(bodies) and gate.steps > 0)
        gate.opened.set()
        together = [told(answer.result()) for answer in waiting]
        alone = [told(served.post(CHAT, body)) for body in bodies]
    assert together == alone
    assert max(gate.sizes) > len(bodies) // 2, "they were answered one after the other"
    assert len(gate.sizes) < 2 * sum(len(text.split()) for text in alone)


def test_pictures_that_gather_are_named_in_one_pass_where_the_names_are_the_same(
    gate: Gate, pool: ThreadPoolExecutor, model: LlavaPose, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    name = Engine.name

    def counted(self: Engine, images: Any, *args: Any, **kwargs: Any) -> Any:
        passes.append(len(images))
        return name(self, images, *args, **kwargs)

    monkeypatch.setattr(Engine, "name", counted)
    urls = [data_url(SAMPLES / f"{name}.jpg") for name in ("car", "chair", "teapot", "motorbike")]
    bodies = [{"image": url, "boxes": [[0, 0, 200, 200]] * (1 + index % 2)} for index, url in enumerate(urls)]
    others = [{"image": url, "categories": ["car", "chair", "teapot", "motorbike"]} for url in urls[:2]]
    with serving(model) as served:
        # The model is busy with a conversation while they come in.
        busy = send(pool, served, CHAT, {"messages": asked(), "max_tokens": 1})
        until(lambda: gate.steps == 1)
        waiting = [send(pool, served, POSE, body) for body in (*bodies, *others)]
        until(lambda: served.metric("llava_pose_queue_length") == len(waiting))
        gate.opened.set()
        found = [answer.result().json()["objects"] for answer in waiting]
        assert busy.result().status_code == 200
        assert sorted(passes) == [2, 6], "one pass for each list of names"
        alone = [served.post(POSE, body).json()["objects"] for body in (*bodies, *others)]
    assert [len(each) for each in found] == [1, 2, 1, 2, 1, 1]
    for one, other in zip(itertools.chain(*found), itertools.chain(*alone), strict=True):
        assert one["category"] == other["category"]
        assert one["azimuth"] == pytest.approx(other["azimuth"], abs=1e-4)


def test_so_many_requests_are_held_and_more_are_told_to_come_again(
    gate: Gate, pool: ThreadPoolExecutor, model: LlavaPose
) -> None:
    with serving(model, max_held=3) as served:
        waiting = [send(pool, served, CHAT, {"messages": asked()}) for _ in range(3)]
        until(lambda: served.places.held == 3)
        for path, body in ((CHAT, {"messages": asked()}), (POSE, {"image": CAR})):
            response = served.post(path, body)
            assert refusal(response)[0] == 429
            assert int(response.headers["retry-after"]) >= 1
        assert served.get("/health").status_code == 200
        gate.opened.set()
        assert [answer.result().status_code for answer in waiting] == [200] * 3
        until(lambda: served.places.held == 0)
        assert served.post(POSE, {"image": CAR}).status_code == 200


def test_the_openai_client_comes_again_by_itself(gate: Gate, pool: ThreadPoolExecutor, model: LlavaPose) -> None:
    with serving(model, max_held=1) as served:
        first = send(pool, served, CHAT, {"messages": asked()})
        until(lambda: served.places.held == 1)
        with openai.OpenAI(base_url=f"{served.url}/v1", api_key="x", max_retries=5) as client:
            second = pool.submit(client.chat.completions.create, model="llava-pose", messages=asked())  # type: ignore
            until(lambda: served.metric('llava_pose_requests_total{route="other",status="429"}') >= 1)
            gate.opened.set()
            assert first.result().status_code == 200
            assert second.result().choices[0].message.content


def test_work_whose_client_hangs_up_while_it_waits_is_cancelled(gate: Gate, model: LlavaPose) -> None:
    with serving(model) as served:
        hang_up(served, CHAT, {"messages": asked()}, when=lambda: gate.steps == 1)
        until(lambda: served.places.held == 0)
        until(lambda: served.metric("llava_pose_cancelled_total") == 1)
        gate.opened.set()
        until(lambda: len(gate.cancelled) == 1)
        assert gate.sizes == [1]
        assert told(served.post(CHAT, {"messages": asked()}))


def test_work_whose_client_hangs_up_while_it_streams_is_cancelled(gate: Gate, model: LlavaPose) -> None:
    with serving(model) as served:
        gate.opened.set()
        step = Answering.step

        def slow(self: Answering) -> Any:
            # The first token is there; the next waits until the client has gone.
            if len(gate.sizes) > 1:
                until(lambda: served.places.held == 0)
            return step(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Answering, "step", slow)
            hang_up(served, CHAT, {"messages": asked(), "stream": True}, when=lambda: True, answered=b"assistant")
            until(lambda: len(gate.cancelled) == 1)
        until(lambda: served.metric("llava_pose_cancelled_total") == 1)
        assert len(gate.sizes) <= 3
        until(lambda: served.metric('llava_pose_requests_total{route="/v1/chat/completions",status="499"}') == 1)


def test_pictures_whose_client_has_gone_are_not_named(
    gate: Gate, pool: ThreadPoolExecutor, model: LlavaPose, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[int] = []
    monkeypatch.setattr(Engine, "name", lambda self, images, *_, **__: named.append(len(images)))
    with serving(model) as served:
        busy = send(pool, served, CHAT, {"messages": asked(), "max_tokens": 1})
        until(lambda: gate.steps == 1)
        hang_up(served, POSE, {"image": CAR}, when=lambda: served.metric("llava_pose_queue_length") == 1)
        until(lambda: served.places.held == 1)
        gate.opened.set()
        assert busy.result().status_code == 200
    assert named == []


def test_a_failing_model_is_a_500_that_tells_nothing_and_the_next_request_is_answered(
    model: LlavaPose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(model) as served:
        with monkeypatch.context() as broken:

            def fail(*_: Any, **__: Any) -> Any:
                raise RuntimeError(f"internal detail about {TURN}")

            broken.setattr(Answering, "step", fail)
            broken.setattr(Engine, "name", fail)
            for path, body in ((CHAT, {"messages": asked()}), (POSE, {"image": CAR})):
                response = served.post(path, body)
                status, param, message = refusal(response)
                assert (status, param) == (500, None)
                assert message == f"something went wrong here; the request was {response.headers['x-request-id']}"
                assert response.json()["error"]["type"] == "server_error"
        assert told(served.post(CHAT, {"messages": asked()}))
        assert served.post(POSE, {"image": CAR}).status_code == 200
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 2 and all("RuntimeError" in line and "worker.py" in line for line in errors)
    assert not any("internal detail" in line or TURN in line for line in errors)


def test_a_model_that_fails_in_the_middle_of_a_stream_ends_it_with_an_error(
    model: LlavaPose, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Answering.step
    steps = []

    def fail_later(self: Answering) -> list[tuple[Request, Any]]:
        steps.append(1)
        if len(steps) > 5:
            raise RuntimeError("internal detail")
        return step(self)

    monkeypatch.setattr(Answering, "step", fail_later)
    with serving(model) as served:
        text = served.post(CHAT, {"messages": asked(), "stream": True}).text
    *_, last, nothing = text.split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["type"] == "server_error"
    assert "internal detail" not in text and "[DONE]" not in text


# Stopping


def test_the_first_signal_finishes_what_was_accepted_and_refuses_what_is_new(
    gate: Gate, pool: ThreadPoolExecutor, model: LlavaPose
) -> None:
    with serving(model) as served:
        whole = send(pool, served, CHAT, {"messages": asked()})
        stream = send(pool, served, CHAT, {"messages": asked(), "stream": True})
        until(lambda: served.places.held == 2)
        served.places.draining = True
        health = served.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "draining")
        response = served.post(POSE, {"image": CAR})
        assert refusal(response)[0] == 503 and "retry-after" in response.headers
        gate.opened.set()
        assert told(whole.result()).startswith("The car <pose>")
        assert stream.result().text.endswith("data: [DONE]\n\n")
    with pytest.raises(httpx.ConnectError):
        served.get("/health")


def test_signals_drain_first_and_end_at_once_then(model: LlavaPose, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr(server.os, "_exit", left.append)
    places = server.Places()
    made = server._Server(server.uvicorn.Config("no:app"), places)
    made.handle_exit(signal.SIGTERM, None)
    assert places.draining and left == []
    made.handle_exit(signal.SIGINT, None)
    made.handle_exit(signal.SIGTERM, None)
    assert left == [130, 143]


def test_who_is_told_that_it_serves_may_send_a_signal(model: LlavaPose) -> None:
    missed: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: missed.append(number))
    try:
        with socket.create_server(("127.0.0.1", 0)) as door:
            server.run(
                server.create_app(model, server.ServerSettings()), door, lambda: signal.raise_signal(signal.SIGTERM)
            )
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not missed


# What is counted


def test_metrics_count_requests_tokens_poses_batches_and_what_waits(model: LlavaPose) -> None:
    with serving(model) as served:
        usage = served.post(CHAT, {"messages": asked()}).json()["usage"]
        assert served.metric("llava_pose_first_token_seconds_count") == 0
        served.post(CHAT, {"messages": asked(), "stream": True, "max_tokens": 1})
        usage["prompt_tokens"] *= 2
        usage["completion_tokens"] += 1
        served.post(POSE, {"image": CAR, "boxes": [[0, 0, 90, 90], [9, 9, 99, 99]]})
        served.post(POSE, {"image": 7})
        metrics: Callable[[str], float] = served.metric
        # A request is counted when its response has gone.
        until(lambda: metrics('llava_pose_requests_total{route="/v1/chat/completions",status="200"}') == 2)
        until(lambda: metrics('llava_pose_requests_total{route="/v1/pose",status="400"}') == 1)
        until(lambda: metrics('llava_pose_request_seconds_count{route="/v1/pose"}') == 2)
        assert metrics('llava_pose_tokens_total{kind="prompt"}') == usage["prompt_tokens"]
        assert metrics('llava_pose_tokens_total{kind="completion"}') == usage["completion_tokens"]
        assert metrics('llava_pose_poses_total{route="/v1/chat/completions"}') == 1
        assert metrics('llava_pose_poses_total{route="/v1/pose"}') == 2
        assert metrics('llava_pose_batch_size_sum{work="pictures"}') == 2
        assert metrics('llava_pose_batch_size_count{work="conversations"}') >= usage["completion_tokens"]
        assert metrics("llava_pose_first_token_seconds_count") == 1
        until(lambda: metrics("llava_pose_queue_length") == metrics("llava_pose_requests_held") == 0)
        assert served.get("/metrics").headers["content-type"].startswith("text/plain; version=")


def test_a_loop_that_was_closed_is_no_trouble_for_the_worker(model: LlavaPose) -> None:
    worker = Worker(model.engine, Metrics(), 4)
    request = model.request(SAMPLES / "car.jpg", [{"role": "user", "content": TURN}], max_new_tokens=3)

    async def begin() -> None:
        await anext(worker.answers(request, float("inf")))

    worker.start()
    with pytest.raises((TimeoutError, asyncio.TimeoutError)):
        asyncio.run(asyncio.wait_for(begin(), 0))
    asyncio.run(begin())
    worker.stop()
