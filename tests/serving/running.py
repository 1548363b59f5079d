"""A real server in a thread of this process, and work that waits until the test says go."""

from __future__ import annotations

import base64
import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from PIL import Image

import llava_pose
from llava_pose import LlavaPose
from llava_pose.generation import Answer, Answering, Request
from llava_pose.server import ServerSettings, create_app, run
from llava_pose.serving.guard import Places

SAMPLES = Path(llava_pose.__file__).parent / "assets" / "samples"
PATIENCE = 60.0
TURN = "How far must the car turn to face me?"


@dataclass
class Served:
    """A server that runs."""

    app: FastAPI
    url: str

    @property
    def places(self) -> Places:
        return self.app.state.places

    def client(self, **options: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=PATIENCE, **options)

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        with self.client() as client:
            return client.post(path, json=body, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        with self.client() as client:
            return client.get(path, **options)

    def metric(self, line: str) -> float:
        """The value of a line of /metrics, 0 where it is not there yet."""
        found = [text for text in self.get("/metrics").text.splitlines() if text.startswith(line + " ")]
        return float(found[0].split()[-1]) if found else 0.0


@contextmanager
def serving(model: LlavaPose, **settings: Any) -> Iterator[Served]:
    """A server on a free port, drained and ended at the end."""
    app = create_app(model, ServerSettings(**settings))
    door = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{door.getsockname()[1]}"
    thread = threading.Thread(target=run, args=(app, door))
    thread.start()
    try:
        yield Served(app, url)
    finally:
        app.state.places.draining = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


class Gate:
    """Stands before the model: each step of a conversation waits until it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.steps = 0
        self.sizes: list[int] = []
        self.cancelled: list[Request] = []


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Servers started in this test answer chats when the gate is opened."""
    own = Gate()

    class Gated(Answering):
        def step(self) -> list[tuple[Request, Answer]]:
            own.steps += 1
            assert own.opened.wait(PATIENCE)
            own.sizes.append(self.running)
            return super().step()

        def cancel(self, request: Request) -> None:
            own.cancelled.append(request)
            super().cancel(request)

    monkeypatch.setattr("llava_pose.serving.worker.Answering", Gated)
    yield own
    own.opened.set()


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def data_url(image: Image.Image | Path, format: str = "PNG") -> str:
    """A picture as requests carry it."""
    if isinstance(image, Path):
        return f"data:image/jpeg;base64,{base64.b64encode(image.read_bytes()).decode()}"
    stream = io.BytesIO()
    image.save(stream, format)
    return f"data:image/{format.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


CAR = data_url(SAMPLES / "car.jpg")


def picture_part(url: str = CAR, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}, **more}


def asked(text: str = TURN, *pictures: dict[str, Any]) -> list[dict[str, Any]]:
    """Messages with one question about the car, or about other pictures."""
    return [{"role": "user", "content": [*(pictures or (picture_part(),)), {"type": "text", "text": text}]}]


def refusal(response: httpx.Response) -> tuple[int, str | None, str]:
    """Status, param and message of an error, which must have OpenAI's form and an id."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"].startswith("req-")
    return response.status_code, error["param"], error["message"]
