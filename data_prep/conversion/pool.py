"""Jobs in this process or in several others."""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.sharedctypes import Synchronized
from typing import Any

import cv2

from data_prep.conversion.jobs import Job, Report, Workshop, make_shard
from data_prep.crew import Crew
from llava_pose import taxonomy


class JobCrew:
    """``workers`` processes for jobs, or this one alone for 1. A context manager."""

    def __init__(self, shop: Workshop, workers: int) -> None:
        # How many images are done, or below 0 once everybody is to stop.
        self._counter = multiprocessing.get_context("spawn").Value("q", 0)
        self._counted = 0
        self._shop, self._alone = shop, workers == 1
        self._crew = Crew(workers, _prepare, (shop, self._counter, taxonomy.active()))

    def __enter__(self) -> JobCrew:
        return self

    def __exit__(self, *error: Any) -> None:
        self._counter.value = -(2**62)
        self._crew.__exit__(*error)

    def run(self, jobs: Sequence[Job], advance: Callable[[int], object]) -> Iterator[tuple[Job, Report]]:
        """Make the shards of jobs; yields each job with its report when it is done.

        ``advance(n)`` is called when n more images are done.

        Raises what ``make_shard`` raises, and UserError when a process was killed.
        """

        if self._alone:
            yield from ((job, make_shard(job, self._shop, lambda: advance(1))) for job in jobs)
            return

        def tick() -> None:
            images = self._counter.value
            advance(images - self._counted)
            self._counted = images

        for finished in self._crew.run(_make_shard, [(job,) for job in jobs], tick):
            tick()
            yield finished


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from malloc.h
_tools: tuple[Workshop, Synchronized[int]]  # of a worker process


def _prepare(shop: Workshop, counter: Synchronized[int], active: taxonomy.Taxonomy) -> None:
    global _tools
    _tools = shop, counter
    cv2.setNumThreads(1)  # the processes are as many as the user wants
    keep_memory()
    taxonomy.activate(active)


def keep_memory() -> None:
    """Have this process keep the memory it frees, where its C library is one that can be told so.

    Images are some hundred kilobytes. glibc gives such blocks back at once, and the system clears them for the next
    image: a seventh of a conversion's time.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 2**25)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**27)


class _GivenUp(Exception):
    """The conversion ends before this job does."""


def _make_shard(job: Job) -> tuple[Job, Report]:
    shop, counter = _tools

    def advance() -> None:
        with counter.get_lock():
            counter.value += 1
            if counter.value < 0:
                raise _GivenUp

    return job, make_shard(job, shop, advance)
