"""What stands before every route: who may ask, how much, for how long; and what is written about it.

A request's body is read here, whole and no larger than allowed, once it is known that the request may be made at all.
From then on its client is watched: when it goes away, the work for it is cancelled.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import logging
import time
import traceback
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError, busy
from .metrics import Metrics
from .settings import ServerSettings

LOG = logging.getLogger("llava_pose.server")

PATIENCE = 5.0
"""Seconds beyond the time limit of a request until it is given up from outside, and those for what is left of a body
that nobody wants."""

CLIENT_GONE = 499
"""The status written where nobody was left to answer."""

MOST_FRAMES = 20
"""Calls that the log tells of a mistake of ours."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""What every answer carries unless its route says otherwise."""


@dataclass
class Places:
    """How many requests are being received, waiting or answered; whether new ones are taken."""

    held: int = 0
    draining: bool = False


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, settings: ServerSettings, metrics: Metrics, places: Places):
        self.app = app
        self.settings = settings
        self.metrics = metrics
        self.places = places
        self._names = {name.casefold() for name in settings.allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        call = _Call(scope, receive, send, self.settings.max_seconds)
        try:
            await self._answer(call)
        except ApiError as refusal:
            await call.refuse(refusal)
        except Exception as error:
            LOG.error("%s %s", call.id, without_message(error))
            await call.refuse(ApiError(500, f"something went wrong here; the request was {call.id}"))
        finally:
            call.log(self.metrics)

    async def _answer(self, call: _Call) -> None:
        self._check(call)
        if call.method in ("GET", "HEAD", "OPTIONS"):
            await self._run(call, b"")
            return
        async with self._place(call):
            await self._run(call, await self._body(call))

    def _check(self, call: _Call) -> None:
        """Raises ApiError unless this may be asked by whoever asks it."""
        headers, key = call.headers, self.settings.api_key
        host, origin = headers.get("host", ""), headers.get("origin")
        if key is None and not self._is_own_name(host):
            # A page may point a name of its own at this machine; the browser then takes both for one site.
            told = "this host name is not served here (llava-pose serve --allow-host NAME serves it)"
            raise ApiError(403, told, code="host_not_allowed")
        if origin is not None and not self._is_own_origin(origin, host):
            raise ApiError(403, "pages of other sites may not use this server", code="origin_not_allowed")
        if key is None or not call.needs_key:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), key.encode()):
            told = "a key is needed: Authorization: Bearer KEY"
            raise ApiError(401, told, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    def _is_own_name(self, host: str) -> bool:
        """Whether a Host header is an address or one of the names meant: no other site can be called so."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name.partition("%")[0])
        except ValueError:
            return name == "localhost" or name in self._names
        return True

    def _is_own_origin(self, origin: str, host: str) -> bool:
        """Whether a page comes from this server, or from a name that it is meant to have: a proxy may change Host."""
        try:
            parts = urlsplit(origin)
            return parts.netloc.casefold() == host.casefold() or parts.hostname in self._names
        except ValueError:
            return False

    @asynccontextmanager
    async def _place(self, call: _Call) -> AsyncIterator[None]:
        """A place among the requests that are held at once. Raises ApiError when there is none."""
        if self.places.draining:
            raise busy("this server is about to stop", 503, "draining")
        if self.places.held >= self.settings.max_held:
            raise busy("too many requests at once; try again")
        self.places.held += 1
        self.metrics.held.set(self.places.held)
        try:
            yield
        finally:
            self.places.held -= 1
            self.metrics.held.set(self.places.held)

    async def _body(self, call: _Call) -> bytes:
        limit = self.settings.max_body_bytes
        too_large = ApiError(413, f"the body is larger than the {limit:,} bytes allowed", code="body_too_large")
        if call.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            # What other sites' forms can send without being asked first is not JSON.
            raise ApiError(415, "Content-Type: expected application/json", code="unsupported_media_type")
        length = call.headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > limit:
            raise too_large
        body = bytearray()
        while True:
            try:
                message = await asyncio.wait_for(call.receive(), call.left)
            except asyncio.TimeoutError:
                call.body_read = True  # nobody is sending
                raise ApiError(408, "the body did not arrive in time", code="timeout") from None
            if message["type"] == "http.disconnect":
                raise _ClientGone
            body += message.get("body", b"")
            call.body_read = not message.get("more_body", False)
            if len(body) > limit:
                raise too_large
            if call.body_read:
                return bytes(body)

    async def _run(self, call: _Call, body: bytes) -> None:
        """Have the application answer, as long as the client is there and time lasts."""
        handed = asyncio.Event()

        async def receive() -> Message:
            if not handed.is_set():
                handed.set()
                return {"type": "http.request", "body": body, "more_body": False}
            await asyncio.Event().wait()  # whether the client is still there is looked after here
            raise AssertionError

        work = asyncio.ensure_future(self.app(call.scope, receive, call.send))
        watch = asyncio.ensure_future(call.gone())
        try:
            await asyncio.wait({work, watch}, timeout=call.left + PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            elif watch.done() and not call.finished:
                raise _ClientGone
            elif not call.finished:
                raise ApiError(504, "the answer took longer than this server allows", code="timeout")
        finally:
            for task in (work, watch):
                task.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)


class _ClientGone(ApiError):
    def __init__(self) -> None:
        super().__init__(CLIENT_GONE, "the client has gone")


class _Call:
    """One request: its place in time, what was sent for it, and what is written about it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, seconds: float):
        self.scope = scope
        self.receive = receive
        self._send = send
        self.method: str = scope["method"]
        self.headers = Headers(scope=scope)
        self.id = f"req-{uuid.uuid4().hex[:16]}"
        self.started = time.monotonic()
        self.deadline = self.started + seconds
        self.status: int | None = None
        self.finished = False
        self.body_read = self.method in ("GET", "HEAD", "OPTIONS")
        scope.setdefault("state", {}).update(request_id=self.id, deadline=self.deadline)

    @property
    def left(self) -> float:
        """Seconds until time is up."""
        return max(self.deadline - time.monotonic(), 0.0)

    @property
    def needs_key(self) -> bool:
        """Whether a server with a key asks for it: for all but reading the page, the API's description and /health."""
        path: str = self.scope["path"]
        return self.method not in ("GET", "HEAD") or path.startswith("/v1") or path.startswith("/metrics")

    async def send(self, message: Message) -> None:
        """Send on, with the headers that every answer carries."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(raw=message.setdefault("headers", []))
            headers["X-Request-Id"] = self.id
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.finished = True
        await self._send(message)

    async def gone(self) -> None:
        """Wait until the client has gone."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def refuse(self, refusal: ApiError) -> None:
        """Answer with an error, unless an answer has begun or nobody is there to read it."""
        if refusal.status_code == CLIENT_GONE:
            self.status = CLIENT_GONE
        if self.status is not None:
            return
        if not self.body_read and self.headers.get("expect", "").lower() != "100-continue":
            # A connection closed on what is still arriving would take the answer with it.
            await self._discard()
        response = JSONResponse(refusal.body, refusal.status_code, headers=dict(refusal.headers or {}))
        await response(self.scope, self.receive, self.send)

    async def _discard(self) -> None:
        end = time.monotonic() + PATIENCE
        while (left := end - time.monotonic()) > 0:
            try:
                message = await asyncio.wait_for(self.receive(), left)
            except asyncio.TimeoutError:
                return
            if not message.get("more_body", False):
                return

    def log(self, metrics: Metrics) -> None:
        """One line, of which nothing was sent in but method and path."""
        seconds = time.monotonic() - self.started
        status = self.status or CLIENT_GONE
        route = getattr(self.scope.get("route"), "path", "other")
        metrics.requests.labels(route, str(status)).inc()
        metrics.seconds.labels(route).observe(seconds)
        path = ascii(self.scope["path"])[1:-1][:100]
        LOG.info("%s %s %s %d ms %s", self.method, path, status, round(1000 * seconds), self.id)


def without_message(error: BaseException) -> str:
    """The kind of an exception and where it came from, the newest call first, and the same of what caused it. Its
    message is left out: it may hold what was sent here."""
    frames = reversed(traceback.extract_tb(error.__traceback__)[-MOST_FRAMES:])
    told = f"{type(error).__name__}: " + " < ".join(f"{each.filename}:{each.lineno} {each.name}" for each in frames)
    return told if error.__cause__ is None else f"{told}, because of {without_message(error.__cause__)}"
