"""Connections as a server that strangers reach should keep them: not too many, and none that says nothing for long."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 500
SECONDS_FOR_HEAD = 20.0
"""How long a request's head may take to arrive; its body has the request's own time."""


class Connection(H11Protocol):
    """uvicorn's, with a limit to their number and to the time that passes before a request's head is complete."""

    _waits: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
        else:
            self._waits = self.loop.call_later(SECONDS_FOR_HEAD, transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        waits = self.conn.their_state is h11.IDLE
        if self._waits is not None and not waits:
            self._waits.cancel()
            self._waits = None
        elif self._waits is None and waits:
            self._waits = self.loop.call_later(SECONDS_FOR_HEAD, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waits is not None:
            self._waits.cancel()
        super().connection_lost(exc)
