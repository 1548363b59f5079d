"""How much may be asked: bytes, nesting, pixels, pictures, tokens, time; and pictures that are no pictures."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from llava_pose import LlavaPose
from llava_pose.serving import connections
from tests.serving.running import (
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


@pytest.fixture(scope="module")
def strict(model: LlavaPose) -> Iterator[Served]:
    limits = {"max_body_bytes": 50_000, "max_pixels": 60_000, "max_images": 2, "max_prompt_tokens": 120}
    with serving(model, **limits, max_new_tokens=4) as served:
        yield served


def raw(server: Served, head: str, *pieces: bytes) -> bytes:
    """What is answered to a request written by hand."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), PATIENCE) as connection:
        connection.sendall(f"{head}\r\nHost: {address.netloc}\r\n".encode())
        for piece in pieces:
            connection.sendall(piece)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


# Bodies


def test_a_body_that_says_it_is_too_large_is_refused_unread(strict: Served) -> None:
    head = f"POST {POSE} HTTP/1.1\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 50001"
    head += "\r\nConnection: close"
    answer = raw(strict, head, b"\r\n")
    assert status_of(answer) == 413 and b"100 Continue" not in answer
    assert b"larger than the 50,000 bytes allowed" in answer


def test_a_body_that_turns_out_too_large_is_refused(strict: Served) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(8):
            yield b" " * 10_000

    with strict.client() as client:
        response = client.post(POSE, content=endless(), headers={"Content-Type": "application/json"})
    assert refusal(response)[0] == 413


def test_whoever_sends_too_much_still_gets_to_read_why(strict: Served) -> None:
    assert refusal(strict.post(POSE, {"image": "x" * 2_000_000}))[0] == 413


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "required"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"image": NaN}', "not JSON"),
        (b'{"image": 1e999}', ""),
        (b'{"image": ' + b"9" * 5000 + b"}", ""),
        (b"[" * 20_000, "recursion limit"),
        (b'{"a":' * 6_000 + b"1" + b"}" * 6_000, "recursion limit"),
        (b"[" * 150 + b"]" * 150, "dictionary"),
        (b"[]", "dictionary"),
        (b"null", "dictionary"),
        (b'"image"', "dictionary"),
    ],
)  # fmt: skip
def test_a_body_that_is_no_request_is_a_mistake_of_the_sender(strict: Served, body: bytes, told: str) -> None:
    with strict.client() as client:
        response = client.post(POSE, content=body, headers={"Content-Type": "application/json"})
    status, _, message = refusal(response)
    assert status == 400 and told in message


def test_a_body_that_does_not_come_is_waited_for_no_longer_than_a_request_may_take(model: LlavaPose) -> None:
    with serving(model, max_seconds=0.3) as hasty:
        head = f"POST {POSE} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 10\r\nConnection: close"
        assert status_of(raw(hasty, head, b"\r\n", b"{")) == 408
        assert hasty.places.held == 0


def test_a_connection_that_says_nothing_or_never_ends_its_head_is_closed(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SECONDS_FOR_HEAD", 0.2)
    assert raw(server, "GET /health HTTP/1.1") == b""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), PATIENCE) as connection:
        assert connection.recv(10) == b""


def test_there_are_no_more_connections_than_allowed(model: LlavaPose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 2)
    with serving(model) as served:
        address = urlsplit(served.url)
        first = [socket.create_connection((address.hostname, address.port), PATIENCE) for _ in range(2)]
        with socket.create_connection((address.hostname, address.port), PATIENCE) as third:
            answer = b""
            with contextlib.suppress(ConnectionError):
                third.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                answer = third.recv(10)
            assert answer == b""
        for connection in first:
            connection.close()


# Pictures


def bomb(width: int, height: int) -> str:
    """A PNG of a few hundred bytes that claims, and holds, a huge black picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 10_000, 9)
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return f"data:image/png;base64,{base64.b64encode(file).decode()}"


def test_a_picture_that_would_unpack_to_too_much_is_refused_by_its_head(server: Served, strict: Served) -> None:
    for size in ((60_000, 60_000), (2**31 - 1, 2**31 - 1), (10_000, 5_001)):
        status, param, message = refusal(server.post(POSE, {"image": bomb(*size)}))
        assert (status, param) == (400, "image")
        assert "more than the 50,000,000 allowed" in message or "not a picture that can be read" in message
    status, param, message = refusal(strict.post(POSE, {"image": data_url(Image.new("RGB", (300, 201)))}))
    assert (status, message) == (400, "image: 300x201 pixels, more than the 60,000 allowed")
    assert strict.post(POSE, {"image": data_url(Image.new("RGB", (300, 200)))}).status_code == 200


def test_text_in_a_picture_that_would_unpack_to_too_much_is_refused(server: Served) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    text = chunk(b"zTXt", b"note\0\0" + zlib.compress(b"x" * 5_000_000, 9))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(b"\0" * 72))
    file = b"\x89PNG\r\n\x1a\n" + head + text + rows + chunk(b"IEND", b"")
    url = f"data:image/png;base64,{base64.b64encode(file).decode()}"
    assert refusal(server.post(POSE, {"image": url}))[:2] == (400, "image")


@pytest.mark.parametrize("format", ["EPS", "TIFF", "PPM", "ICO", "PDF"])
def test_formats_that_pages_do_not_show_are_not_opened(server: Served, format: str) -> None:
    # Pillow would run Ghostscript for the first.
    url = data_url(Image.new("RGB", (16, 16)), format)
    assert refusal(server.post(POSE, {"image": url}))[:2] == (400, "image")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_formats_that_pages_show_are_opened(server: Served, format: str) -> None:
    with Image.open(SAMPLES / "car.jpg") as picture:
        assert server.post(POSE, {"image": data_url(picture, format)}).status_code == 200


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "/etc/passwd",
        "../../etc/passwd",
        "ftp://example.com/a.png",
        "gopher://127.0.0.1/",
        "data:image/svg+xml,<svg/>",
        "DATA:text/plain;base64,aGVsbG8=",
        "http://127.0.0.1/a.png",
        "https://example.com/a.png",
        "",
    ],
)
def test_no_other_url_is_opened_unless_the_server_was_told_to(
    server: Served, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fetched(*_: Any) -> bytes:
        raise AssertionError("something was fetched")

    monkeypatch.setattr("llava_pose.serving.pictures.fetch", fetched)
    assert refusal(server.post(POSE, {"image": url}))[:2] == (400, "image")
    status, param, _ = refusal(server.post(CHAT, {"messages": asked(TURN, picture_part(url))}))
    assert (status, param) == (400, "messages[0].content[0]")


def test_there_may_be_so_many_pictures(strict: Served) -> None:
    small = picture_part(data_url(Image.new("RGB", (32, 32))))
    assert strict.post(CHAT, {"messages": asked(TURN, small, small)}).status_code == 200
    status, param, message = refusal(strict.post(CHAT, {"messages": asked(TURN, small, small, small)}))
    assert (status, param, message) == (400, "messages", "messages: 3 pictures, more than the 2 allowed")


# Tokens and time


def test_a_conversation_may_be_so_long(strict: Served, model: LlavaPose) -> None:
    for words in ("car " * 200, "x" * 40_000):
        response = strict.post(CHAT, {"messages": [{"role": "user", "content": words}]})
        assert refusal(response) == (400, "messages", "messages: more than the 120 tokens allowed")
        assert response.json()["error"]["code"] == "context_length_exceeded"


def test_an_answer_may_be_so_long(strict: Served) -> None:
    small = picture_part(data_url(Image.new("RGB", (32, 32))))
    found = strict.post(CHAT, {"messages": asked(TURN, small)}).json()
    assert (found["usage"]["completion_tokens"], found["choices"][0]["finish_reason"]) == (4, "length")
    assert refusal(strict.post(CHAT, {"messages": asked(TURN, small), "max_tokens": 5}))[:2] == (400, "max_tokens")


def test_an_answer_that_takes_too_long_is_given_up(gate: Gate, model: LlavaPose) -> None:
    with serving(model, max_seconds=0.5) as hasty:
        start = time.monotonic()
        status, _, message = refusal(hasty.post(CHAT, {"messages": asked()}))
        assert (status, message) == (504, "the answer took longer than this server allows")
        assert time.monotonic() - start >= 0.5
        gate.opened.set()
        until(lambda: len(gate.cancelled) == 1 and hasty.places.held == 0)


def test_a_stream_that_takes_too_long_ends_with_an_error(gate: Gate, model: LlavaPose) -> None:
    with serving(model, max_seconds=1.5) as hasty:
        gate.opened.set()
        with (
            hasty.client() as client,
            client.stream("POST", CHAT, json={"messages": asked(), "stream": True}) as stream,
        ):
            lines = stream.iter_lines()
            assert json.loads(next(lines).removeprefix("data: "))["choices"]
            gate.opened.clear()
            told = [json.loads(line.removeprefix("data: ")) for line in lines if line]
        assert told[-1]["error"]["code"] == "timeout"
        gate.opened.set()
        until(lambda: len(gate.cancelled) == 1)
