"""A small server that speaks OpenAI's chat API, answers as a test tells it to, and keeps what it was asked."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """``body`` None: a completion with ``text``."""

    text: str | None = None
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0


@dataclass
class Asked:
    """One request: its body, headers (names in small letters), and when it came and was answered (seconds)."""

    body: dict[str, Any]
    headers: dict[str, str]
    came: float
    answered: float | None = None

    @property
    def names(self) -> list[str]:
        """The objects' names."""
        return re.findall(r"^(\w+?\d+): ", self.body["messages"][1]["content"][0]["text"], flags=re.MULTILINE)

    @property
    def image(self) -> bytes:
        """The image's file."""
        kind, data = self.body["messages"][1]["content"][1]["image_url"]["url"].split(";base64,")
        assert kind == "data:image/jpeg"
        return base64.b64decode(data)

    @property
    def tries(self) -> int:
        """Answers that were refused before."""
        return len(self.body["messages"]) // 2 - 1


def good(asked: Asked, number: int) -> Reply:
    """A caption with every name."""
    return Reply(f"{' stands by '.join(asked.names)} on a grey street.")


@dataclass
class Endpoint:
    """``reply(asked, number)`` answers the request of this number (from 0). ``busiest``: most requests at once."""

    url: str
    reply: Callable[[Asked, int], Reply] = good
    asked: list[Asked] = field(default_factory=list)
    busiest: int = 0
    under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


def completion(text: str | None) -> dict[str, Any]:
    """A reply's body as the API has it."""
    message = {"role": "assistant", "content": text, "refusal": None if text is not None else "I can't help with that."}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "teller-1",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 20, "total_tokens": 1020},
    }


def _handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/chat/completions"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked = Asked(body, {name.lower(): value for name, value in self.headers.items()}, time.monotonic())
            with endpoint.lock:
                number = len(endpoint.asked)
                endpoint.asked.append(asked)
                endpoint.under_way += 1
                endpoint.busiest = max(endpoint.busiest, endpoint.under_way)
            reply = endpoint.reply(asked, number)
            time.sleep(reply.delay)
            with endpoint.lock:
                endpoint.under_way -= 1
            content = completion(reply.text) if reply.body is None else reply.body
            payload = content if isinstance(content, bytes) else json.dumps(content).encode()
            with contextlib.suppress(OSError):  # a client that waits no longer
                self.send_response(reply.status)
                for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)
                asked.answered = time.monotonic()

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


@contextmanager
def serving() -> Iterator[Endpoint]:
    """An endpoint on a free port of this machine."""
    endpoint = Endpoint("")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(endpoint))
    server.daemon_threads = True
    server.block_on_close = False
    endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
