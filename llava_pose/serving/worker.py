"""The one thread that runs the model, and how requests reach it.

Nothing waits for a batch to fill: what has gathered while the model was busy is done together next. Conversations
grow together by one token a step, new ones join between steps, and pictures to be named go through in between, those
that choose among the same names in one pass.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from llava_pose.engine import Engine, Naming
from llava_pose.generation import Answer, Answering, Request
from llava_pose.image_inputs import ImageInputs
from llava_pose.trie import NameTrie

from .errors import ApiError
from .metrics import Metrics


class ModelError(Exception):
    """The model failed at a piece of work; the cause is attached."""


@dataclass(eq=False)
class _Job:
    """A piece of work, and the way its results come back to the event loop that waits for them."""

    loop: asyncio.AbstractEventLoop
    deadline: float
    results: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    arrived: float = field(default_factory=time.monotonic)
    gone: bool = False

    async def result(self) -> Any:
        """The next result. Raises ApiError when time is up, and ModelError."""
        try:
            found = await asyncio.wait_for(self.results.get(), max(self.deadline - time.monotonic(), 0))
        except asyncio.TimeoutError:
            raise ApiError(504, "the answer took longer than this server allows", code="timeout") from None
        if isinstance(found, BaseException):
            raise ModelError from found
        return found


@dataclass(eq=False, kw_only=True)
class _NameJob(_Job):
    pixels: ImageInputs
    trie: NameTrie


@dataclass(eq=False, kw_only=True)
class _ChatJob(_Job):
    request: Request
    begun: bool = False


class Worker:
    """Runs an engine for many requests at once. Its coroutines belong to one event loop."""

    def __init__(self, engine: Engine, metrics: Metrics, max_batch: int):
        self._engine = engine
        self._metrics = metrics
        self._max_batch = max_batch
        self._waiting: deque[_Job] = deque()
        self._running: dict[Request, _ChatJob] = {}
        self._answering = Answering(engine)
        self._changed = threading.Condition()
        self._stopped = False
        # It may be in the middle of a long pass when the process is told to end at once.
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """End, when the pass under way is through; what still waits is left undone."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    async def name(self, pixels: ImageInputs, trie: NameTrie, deadline: float) -> list[Naming]:
        """The best name of each picture, and its pose. Raises ApiError past the deadline (``time.monotonic``)."""
        job = _NameJob(asyncio.get_running_loop(), deadline, pixels=pixels, trie=trie)
        with self._under_way(job):
            return await job.result()

    async def answers(self, request: Request, deadline: float) -> AsyncGenerator[Answer, None]:
        """The answer to a conversation, as it grows where the request says so; the last is ``finished``.

        Raises ApiError past the deadline.
        """
        job = _ChatJob(asyncio.get_running_loop(), deadline, request=request)
        with self._under_way(job):
            while True:
                answer: Answer = await job.result()
                yield answer
                if answer.finished:
                    return

    @contextmanager
    def _under_way(self, job: _Job) -> Iterator[None]:
        """While somebody waits for a job; whoever leaves before its end takes the work along."""
        with self._changed:
            self._waiting.append(job)
            self._metrics.waiting.set(len(self._waiting))
            self._changed.notify()
        try:
            yield
        except BaseException:
            self._metrics.cancelled.inc()
            raise
        finally:
            with self._changed:
                job.gone = True
                self._changed.notify()

    # What follows runs in the worker's thread.

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._stopped or self._waiting or self._running):
                    self._changed.wait()
                if self._stopped:
                    return
                names, chats = self._take()
                self._metrics.waiting.set(len(self._waiting))
            if names:
                self._name(names)
            self._answer(chats)

    def _take(self) -> tuple[list[_NameJob], list[_ChatJob]]:
        """What is done next: pictures for one pass, and conversations for the free places. What waits for longest goes
        first, and what nobody waits for any more is dropped."""
        names: list[_NameJob] = []
        chats: list[_ChatJob] = []
        left: deque[_Job] = deque()
        pictures, places = 0, self._max_batch - len(self._running)
        for job in self._waiting:
            if job.gone:
                continue
            if isinstance(job, _ChatJob) and len(chats) < places:
                chats.append(job)
            elif isinstance(job, _NameJob) and _fits(job, names, self._max_batch - pictures):
                names.append(job)
                pictures += len(job.pixels)
            else:
                left.append(job)
        self._waiting = left
        return names, chats

    def _name(self, jobs: Sequence[_NameJob]) -> None:
        try:
            pixels = ImageInputs.join([job.pixels for job in jobs])
            self._metrics.batches.labels("pictures").observe(len(pixels))
            found = iter(self._engine.name(pixels, jobs[0].trie))
            results: list[Any] = [[next(found) for _ in range(len(job.pixels))] for job in jobs]
        except Exception as error:
            results = [error] * len(jobs)
        self._deliver(list(zip(jobs, results, strict=True)))

    def _answer(self, new: Sequence[_ChatJob]) -> None:
        """Take in new conversations, drop those whose clients have gone, and go on with all by one token."""
        for job in [job for job in self._running.values() if job.gone]:
            self._answering.cancel(job.request)
            del self._running[job.request]
        results: list[tuple[_Job, Any]] = []
        for job in new:
            try:
                self._answering.add(job.request)
                self._running[job.request] = job
            except Exception as error:
                results.append((job, error))
        at_once = len(self._running)
        try:
            grown = self._answering.step() if self._running else []
        except Exception as error:
            # What is left of the running ones may be anything: they end together, and the next begin anew.
            results += [(job, error) for job in self._running.values()]
            self._running, self._answering, grown = {}, Answering(self._engine), []
        if at_once:
            self._metrics.batches.labels("conversations").observe(at_once)
        for request, answer in grown:
            job = self._running[request]
            if request.growing and not job.begun:
                job.begun = True
                self._metrics.first_token.observe(time.monotonic() - job.arrived)
            if answer.finished:
                del self._running[request]
            if answer.finished or request.growing:
                results.append((job, answer))
        self._deliver(results)

    def _deliver(self, results: Sequence[tuple[_Job, Any]]) -> None:
        """Hand results to those who wait, one call for all of a loop's: waking it costs more than the rest."""
        for loop in {job.loop for job, _ in results}:
            own = [(job, result) for job, result in results if job.loop is loop]
            try:
                loop.call_soon_threadsafe(_put, own)
            except RuntimeError:  # the loop was closed: nobody waits any more
                continue


def _put(results: Sequence[tuple[_Job, Any]]) -> None:
    for job, result in results:
        job.results.put_nowait(result)


def _fits(job: _NameJob, taken: Sequence[_NameJob], room: int) -> bool:
    """Whether a job can go into the same pass as those taken: the same names, and room for its pictures."""
    return not taken or (job.trie is taken[0].trie and len(job.pixels) <= room)
