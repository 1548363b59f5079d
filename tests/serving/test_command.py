"""``llava-pose serve`` as a command: mistakes in one line, and a process that starts, keeps quiet about secrets, and
stops as it should."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from llava_pose.cli import main
from llava_pose.errors import UserError
from llava_pose.serving import command
from tests.serving.running import CAR, PATIENCE, asked, until

ROOT = Path(__file__).resolve().parents[2]
KEY = "a-key-that-nobody-guesses"


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded before the mistake was told")

    monkeypatch.delenv(command.KEY_VARIABLE, raising=False)
    monkeypatch.setattr("llava_pose.terminal.open_model", load)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--port 65536", "--port: must be a whole number from 0 to 65535, got '65536'"),
        ("--port web", "--port: must be a whole number"),
        ("--host no.such.host.invalid --port 0", "--host no.such.host.invalid --port 0: cannot be served at: "),
        ("--host 192.0.2.7 --port 0", "cannot be served at: "),
        ("--host 0.0.0.0 --port 0", "0.0.0.0 is reached from other machines: set a key (--api-key-file or LLAVA_POSE"),
        ("--port 0 --api-key-file {tmp}/none", "none: cannot be read"),
        ("--port 0 --api-key-file {tmp}", "cannot be read"),
        ("--port 0 --api-key-file {short}", "short.txt: a key is one line of at least 16 letters"),
        ("--port 0 --api-key-file {two}", "two.txt: a key is one line"),
        ("--port 0 --model {tmp}/none", "none: no such model folder"),
        ("--max-seconds 0", "--max-seconds: must be a number above 0"),
        ("--max-images -1", "--max-images: must be a whole number above 0"),
        ("--max-body-mib nan", "--max-body-mib: must be a number above 0"),
    ],
)
def test_a_mistake_is_told_before_a_model_is_loaded(line: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("secret123")
    (tmp_path / "two.txt").write_text("a-long-enough-key\nand-another-one\n")
    names = {"tmp": tmp_path, "short": tmp_path / "short.txt", "two": tmp_path / "two.txt"}
    with pytest.raises(UserError) as mistake:
        main(["serve", *line.format(**names).split()])
    assert told in str(mistake.value)
    assert "secret123" not in str(mistake.value)


def test_a_port_that_is_taken_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"--port: {port} is taken on 127.0.0.1; choose another"):
            main(["serve", "--port", str(port)])


def test_packages_that_are_missing_are_told_with_the_extra_that_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None if name in ("fastapi", "uvicorn") else True)
    with pytest.raises(UserError, match=r"serve: fastapi, uvicorn is not installed: pip install 'llava-pose\[serve\]'"):
        main(["serve"])


def test_a_key_is_never_an_argument_and_its_variable_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="unrecognized arguments"):
        main(["serve", "--api-key", "x"])
    monkeypatch.setenv(command.KEY_VARIABLE, f" {KEY}\n")
    assert command._key(None) == KEY
    monkeypatch.setenv(command.KEY_VARIABLE, "short")
    with pytest.raises(UserError, match="LLAVA_POSE_API_KEY: a key is one line"):
        command._key(None)


# A process


class Process:
    """``llava-pose serve`` on a free port, its output in a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, url: str):
        self.process, self.log, self.url = process, log, url

    def text(self) -> str:
        return self.log.read_text()


@contextmanager
def process(model: Path, log: Path, *options: str, **environment: str) -> Iterator[Process]:
    command = [sys.executable, "-m", "llava_pose.cli", "serve", "--port", "0", "--model", str(model), *options]
    with log.open("wb") as output:
        started = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, env={**os.environ, **environment})
    try:
        until(lambda: "/docs" in log.read_text() or started.poll() is not None)
        found = re.search(r"^llava-pose \S+: (http://127\.0\.0\.1:\d+) ", log.read_text(), re.MULTILINE)
        assert found, log.read_text()
        yield Process(started, log, found[1])
    finally:
        started.kill()
        started.wait(PATIENCE)


def opened_stream(served: Process, **more: Any) -> socket.socket:
    """A connection over which a long answer has begun to come."""
    body = json.dumps({"messages": asked(), "stream": True, **more}).encode()
    port = int(served.url.rpartition(":")[2])
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
    head = (
        f"POST /v1/chat/completions?token=query-secret HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
    )
    head += f"Connection: close\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    assert select.select([connection], [], [], PATIENCE)[0]
    return connection


def test_a_process_tells_its_url_hides_its_key_and_loses_no_accepted_request(
    tiny_model_dir: Path, tmp_path: Path
) -> None:
    with process(tiny_model_dir, tmp_path / "log", LLAVA_POSE_API_KEY=KEY) as served:
        with opened_stream(served, max_tokens=900) as stream:
            headers = {"Authorization": f"Bearer {KEY}"}
            assert httpx.get(f"{served.url}/v1/models", headers=headers).json()["data"][0]["id"] == "model"
            served.process.send_signal(signal.SIGTERM)
            text = b"".join(iter(lambda: stream.recv(65536), b"")).decode()
        assert '"finish_reason": "length"' in text and "data: [DONE]" in text
        assert served.process.wait(PATIENCE) == 0
        log = served.text()
    assert re.search(r"^\S+ \S+ POST /v1/chat/completions 200 \d+ ms req-[0-9a-f]{16}$", log, re.MULTILINE)
    for secret in (KEY, "query-secret", "Bearer", CAR[60:100], "How far must"):
        assert secret not in log


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signals", "code"),
    [
        ([signal.SIGTERM, signal.SIGTERM], 143),
        ([signal.SIGINT, signal.SIGINT], 130),
        ([signal.SIGTERM, signal.SIGINT], 130),
    ],
)
def test_a_second_signal_ends_a_process_at_once(
    signals: list[signal.Signals], code: int, tiny_model_dir: Path, tmp_path: Path
) -> None:
    with (
        process(tiny_model_dir, tmp_path / "log") as served,
        opened_stream(served, max_tokens=900),
    ):
        served.process.send_signal(signals[0])
        until(lambda: "stopping: 1 requests" in served.text())
        served.process.send_signal(signals[1])
        assert served.process.wait(PATIENCE) == code


@pytest.mark.slow
def test_a_process_that_does_nothing_stops_at_once_and_well(tiny_model_dir: Path, tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with (
            process(tiny_model_dir, tmp_path / "log") as served,
            socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))),
        ):
            # Somebody who says nothing is not waited for.
            start = time.monotonic()
            served.process.send_signal(number)
            assert served.process.wait(PATIENCE) == 0
            assert time.monotonic() - start < 10


@pytest.mark.slow
def test_a_killed_client_under_load_frees_the_server(tiny_model_dir: Path, tmp_path: Path) -> None:
    with process(tiny_model_dir, tmp_path / "log") as served:
        streams = [opened_stream(served, max_tokens=900) for _ in range(20)]
        for stream in streams:
            stream.close()

        def told() -> str:
            return httpx.get(f"{served.url}/metrics").text

        until(lambda: re.search(r"^llava_pose_requests_held 0\.0$", told(), re.MULTILINE) is not None)
        until(lambda: 'status="499"} 20.0' in told())
