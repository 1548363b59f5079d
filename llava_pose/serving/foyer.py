"""What a server answers while its model still loads: the page, and to everything else to come again in a second."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from starlette.responses import JSONResponse, Response

from llava_pose.app import add_page

from .connections import Connection
from .errors import busy
from .guard import Guard, Places
from .metrics import Metrics
from .settings import ServerSettings


@contextmanager
def foyer(door: socket.socket, settings: ServerSettings) -> Iterator[None]:
    """Answer at a listening socket, from a thread, while the block lasts; who comes after that waits at the door."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, settings=settings, metrics=Metrics(), places=Places())
    add_page(app)

    @app.api_route("/{path:path}", methods=["GET", "HEAD", "POST"])
    async def later(path: str) -> Response:
        refusal = busy("the model is loading", 503, "loading")
        return JSONResponse(refusal.body, refusal.status_code, headers=dict(refusal.headers or {}))

    config = uvicorn.Config(
        app, http=Connection, ws="none", log_config=None, log_level="critical", access_log=False,
        server_header=False, proxy_headers=False, lifespan="off", timeout_graceful_shutdown=5,
    )  # fmt: skip
    server = uvicorn.Server(config)
    # uvicorn closes what it listened at; the door itself stays open.
    thread = threading.Thread(target=server.run, args=([door.dup()],), name="foyer", daemon=True)
    thread.start()
    try:
        yield
    finally:
        while thread.is_alive() and not server.started:  # a server that is told before it has started does not listen
            time.sleep(0.01)
        server.should_exit = True
        thread.join()
