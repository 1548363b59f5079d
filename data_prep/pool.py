"""Jobs in this process or in several others."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.sharedctypes import Synchronized

import cv2

from data_prep.crew import Crew
from data_prep.jobs import Job, Report, Workshop, make_shard
from llava_pose import taxonomy


def run_jobs(
    jobs: Sequence[Job], shop: Workshop, workers: int, advance: Callable[[int], object]
) -> Iterator[tuple[Job, Report]]:
    """Make the shards of jobs in so many processes; yields each job with its report when it is done.

    ``advance(n)`` is called when n more images are done.

    Raises what ``make_shard`` raises, and UserError when a process was killed.
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        cv2.setNumThreads(1)
        for job in jobs:
            yield job, make_shard(job, shop, lambda: advance(1))
        return
    # How many images are done, or below 0 once everybody is to stop.
    counter = multiprocessing.get_context("spawn").Value("q", 0)
    counted = 0

    def tick() -> None:
        nonlocal counted
        images = counter.value
        advance(images - counted)
        counted = images

    with Crew(workers, _prepare, (shop, counter, taxonomy.active())) as crew:
        try:
            yield from crew.run(_make_shard, [(job,) for job in jobs], tick)
        finally:
            counter.value = -(2**62)


_tools: tuple[Workshop, Synchronized[int]]  # of a worker process


def _prepare(shop: Workshop, counter: Synchronized[int], active: taxonomy.Taxonomy) -> None:
    global _tools
    _tools = shop, counter
    cv2.setNumThreads(1)  # the processes are as many as the user wants
    taxonomy.activate(active)


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
