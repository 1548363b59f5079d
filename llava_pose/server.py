"""The HTTP API: OpenAI's chat, ``/v1/pose``, ``/health`` and ``/metrics``, and the page beside them.

What a route does lies in ``serving``; here it is put together, started and stopped.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

import pydantic_core
import uvicorn
from fastapi import APIRouter, FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.responses import Response

from . import __version__
from .api import LlavaPose
from .app import add_page
from .serving import schemas
from .serving.chat import Chats
from .serving.connections import Connection
from .serving.docs import add_docs
from .serving.errors import ApiError, error_object
from .serving.guard import LOG, Guard, Places
from .serving.metrics import CONTENT_TYPE_LATEST, Metrics
from .serving.naming import Names
from .serving.settings import ServerSettings
from .serving.worker import Worker

READERS = 2
"""Threads that open pictures: each may hold one decoded whole."""

DESCRIPTION = """\
Which way things face: questions about pictures are answered in words, each `<pose>` mark in them with the object's
azimuth, elevation and theta. Angles are in radians."""

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.ErrorAnswer, "description": told}
    for status, told in {
        400: "a mistake in what was asked: `param` names the field",
        401: "the key is missing or wrong",
        403: "asked by another site's page, or under another name",
        408: "the body did not arrive in time",
        413: "the body is too large",
        415: "the body is not JSON",
        429: "too many requests at once; Retry-After says when to try again",
        500: "a mistake of the server's",
        503: "the server is about to stop",
        504: "the answer took too long",
    }.items()
}

EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {"data": {"type": "string", "description": "a chat.completion.chunk as JSON, or [DONE]"}},
}
"""What each event of a stream is: before OpenAPI 3.2 the schema of an event stream is that of its events."""

STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the answer; with `stream` a chat.completion.chunk an event, whose delta has `poses` beside the "
        "marks in its content, and at the end `[DONE]`",
        "content": {"text/event-stream": {"schema": EVENT}},
    },
    404: {"model": schemas.ErrorAnswer, "description": "`model` is not served here"},
}


def create_app(model: LlavaPose, settings: ServerSettings) -> FastAPI:
    """The application that serves this model, with its page."""
    metrics, places, started = Metrics(), Places(), int(time.time())
    worker = Worker(model.engine, metrics, settings.max_batch)
    threads = ThreadPoolExecutor(READERS, thread_name_prefix="pictures")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker.start()
        yield
        worker.stop()
        threads.shutdown()

    app = FastAPI(
        title="LLaVA-pose", version=__version__, description=DESCRIPTION, lifespan=lifespan,
        docs_url=None, redoc_url=None, swagger_ui_oauth2_redirect_url=None,
    )  # fmt: skip
    app.state.places = places
    app.add_middleware(Guard, settings=settings, metrics=metrics, places=places)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    key = [] if settings.api_key is None else [Security(HTTPBearer(auto_error=False))]
    routes = APIRouter(route_class=_JsonRoute, dependencies=key, responses=ERRORS)
    watched = APIRouter(responses={503: {"model": schemas.Health, "description": "it is about to stop"}})
    chats = Chats(model, worker, settings, metrics, threads)
    names = Names(model, worker, settings, metrics, threads)

    @routes.post(
        "/v1/chat/completions", response_model=schemas.ChatAnswer, responses=STREAM, tags=["chat"],
        summary="Answer a conversation about pictures",
    )  # fmt: skip
    async def chat(body: schemas.ChatRequest, request: Request) -> Response:
        return await chats.complete(body, request)

    @routes.post(
        "/v1/pose", response_model=schemas.PoseAnswer, tags=["pose"],
        summary="Name objects in a picture and read their poses",
    )  # fmt: skip
    async def pose(body: schemas.PoseRequest, request: Request) -> Response:
        return await names.objects(body, request)

    @routes.get("/v1/models", response_model=schemas.Models, tags=["models"], summary="The model served here")
    async def models() -> Any:
        entry = {"id": settings.model_name, "object": "model", "created": started, "owned_by": "llava-pose"}
        return {"object": "list", "data": [entry]}

    @watched.get("/health", response_model=schemas.Health, tags=["server"], summary="Whether it answers")
    async def health(response: Response) -> Any:
        response.status_code = 503 if places.draining else 200
        status = "draining" if places.draining else "ready"
        return {"status": status, "model": settings.model_name, "version": __version__}

    @routes.get("/metrics", response_class=PlainTextResponse, tags=["server"], summary="Counters for Prometheus")
    async def counters() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)

    app.include_router(routes)
    app.include_router(watched)
    add_docs(app)
    add_page(app)
    _document_refusals(app)
    return app


def _document_refusals(app: FastAPI) -> None:
    """Take out of the API's description what FastAPI says of mistakes, which are answered in OpenAI's form here."""
    described = app.openapi()
    for methods in described["paths"].values():
        for operation in methods.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        described["components"]["schemas"].pop(name, None)


class _JsonRequest(Request):
    async def json(self) -> Any:
        """The body, read by a parser that refuses what is nested too deeply. Raises ApiError for what is no JSON."""
        try:
            return pydantic_core.from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise ApiError(400, f"the body is not JSON: {error}", code="invalid_json") from error


class _JsonRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Any]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            return await handle(_JsonRequest(request.scope, request.receive))

        return handled


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body = error.body if isinstance(error, ApiError) else error_object(error.status_code, str(error.detail))
    return JSONResponse(body, error.status_code, headers=dict(error.headers or {}))


def _place(parts: Sequence[int | str]) -> str:
    """Where in a body something is, out of pydantic's parts, some of which only say which of several forms it has."""
    forms = {"stop": {1}, "messages": {2, 4, 6} if "content" in parts[3:4] else {2}}
    own = [part for index, part in enumerate(parts) if index not in forms.get(str(parts[0]), set())]
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in own).lstrip(".")


async def _invalid(_: Request, error: Exception) -> Response:
    """The first mistake of a body that has not the form it should have."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    place = _place(first["loc"][1:]) if first["loc"][1:] else ""
    given = first.get("input")
    value = f", got {given!r:.60}" if isinstance(given, (bool, int, float)) else ""
    told = f"{place or 'body'}: {first['msg']}{value}"
    return JSONResponse(error_object(400, told, place or None, first["type"]), 400)


def log_to_stderr() -> None:
    """A line for each request: time, method, path, status, milliseconds, id."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)


def run(app: FastAPI, door: socket.socket, announce: Callable[[], None] = lambda: None) -> None:
    """Serve on a listening socket until SIGTERM or SIGINT; what was accepted is answered before this returns.

    ``announce`` is called once requests are answered and signals obeyed: who waits for what it says may send one. A
    second signal ends the process at once, with exit code 128 and its number.
    """
    config = uvicorn.Config(
        app, http=Connection, ws="none", log_config=None, log_level="critical", access_log=False,
        server_header=False, proxy_headers=False, lifespan="on",
    )  # fmt: skip
    _Server(config, app.state.places, announce).run([door])


class _Server(uvicorn.Server):
    """uvicorn, which on a signal would close its door at once; here it stays open, to say that nothing more is taken,
    until what was accepted is answered."""

    def __init__(self, config: uvicorn.Config, places: Places, announce: Callable[[], None] = lambda: None):
        super().__init__(config)
        self._places = places
        self._announce = announce
        self._told = False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, without raising a signal again once it has been obeyed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first signal; leave at the second."""
        if self._places.draining:
            os._exit(128 + sig)
        self._places.draining = True

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop: asked ten times a second."""
        if self._places.draining and not self._told:
            self._told = True
            LOG.info("stopping: %d requests are finished first; a second signal ends at once", self._places.held)
        return await super().on_tick(counter) or (self._places.draining and not self._places.held)


__all__ = ["ServerSettings", "create_app"]
