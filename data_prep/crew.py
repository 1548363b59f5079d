"""Processes that share out pieces of work, and end with a whole piece when the user stops the command."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from types import TracebackType
from typing import Any, TypeVar

from llava_pose.errors import UserError

Result = TypeVar("Result")


_TICK = 0.2  # seconds


class Crew:
    """``workers`` processes, or this one alone for 1. A context manager; they start with the first work.

    Each process calls ``prepare(*tools)`` before its first piece.
    """

    def __init__(self, workers: int, prepare: Callable[..., object] | None = None, tools: tuple[Any, ...] = ()) -> None:
        self.workers = workers
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(workers, context, _begin, (prepare, tools)) if workers > 1 else None
        if self._pool is None and prepare is not None:
            prepare(*tools)

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def run(
        self,
        function: Callable[..., Result],
        pieces: Iterable[tuple[Any, ...]],
        tick: Callable[[], object] | None = None,
    ) -> Iterator[Result]:
        """``function(*piece)`` of every piece, as they are done, with few of them on their way at a time.

        While others work, ``tick`` is called a few times a second, and before each result.

        Raises UserError when a process has been killed, most likely for its memory.
        """
        if self._pool is None:
            yield from (function(*piece) for piece in pieces)
            return
        ahead = iter(pieces)
        try:
            pending = {self._submit(self._pool, function, piece) for piece in islice(ahead, 4 * self.workers)}
            while pending:
                done, pending = wait(pending, timeout=None if tick is None else _TICK, return_when=FIRST_COMPLETED)
                if tick is not None:
                    tick()
                pending |= {self._submit(self._pool, function, piece) for piece in islice(ahead, len(done))}
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            raise UserError("a worker process was killed (out of memory?): try fewer --workers") from error

    @staticmethod
    def _submit(pool: ProcessPoolExecutor, function: Callable[..., Result], piece: tuple[Any, ...]) -> Future[Result]:
        # Ctrl-C is for this process: one that starts now inherits the mask, and never sees it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return pool.submit(function, *piece)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _begin(prepare: Callable[..., object] | None, tools: tuple[Any, ...]) -> None:
    _watch_parent()
    if prepare is not None:
        prepare(*tools)


def _watch_parent() -> None:
    """End with the parent: one that is killed tells its workers nothing, and they would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
