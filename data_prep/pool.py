"""Jobs in this process or in several others, which end when this one does."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import Synchronized

import cv2

from data_prep.jobs import Job, Report, Workshop, make_shard
from llava_pose import taxonomy
from llava_pose.errors import UserError

_POLL = 0.2  # seconds from one look at the progress to the next


def run_jobs(
    jobs: Sequence[Job], shop: Workshop, workers: int, advance: Callable[[int], object]
) -> Iterator[tuple[Job, Report]]:
    """Make the shards of jobs in so many processes; yields each job with its report when it is done.

    ``advance(n)`` is called when n more images are done.

    Raises what ``make_shard`` raises, and UserError when a process was ended from outside.
    """
    if workers == 1 or len(jobs) <= 1:
        cv2.setNumThreads(1)
        for job in jobs:
            yield job, make_shard(job, shop, lambda: advance(1))
        return
    context = multiprocessing.get_context("spawn")
    # How many images are done, or below 0 once everybody is to stop.
    counter = context.Value("q", 0)
    initial = (shop, counter, taxonomy.active())
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, initializer=_start_worker, initargs=initial)
    try:
        # Ctrl-C is for this process: workers inherit the mask and never see it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        pending = {pool.submit(_make_shard, job): job for job in jobs}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        counted = 0
        while pending:
            done, _ = wait(pending, timeout=_POLL, return_when=FIRST_COMPLETED)
            images = counter.value
            advance(images - counted)
            counted = images
            for future in done:
                yield pending.pop(future), future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was ended from outside, perhaps for lack of memory: try fewer --workers"
        ) from error
    finally:
        counter.value = -(2**62)
        pool.shutdown(cancel_futures=True)


_context: tuple[Workshop, Synchronized[int]]  # of a worker process


def _start_worker(shop: Workshop, counter: Synchronized[int], active: taxonomy.Taxonomy) -> None:
    global _context
    _context = shop, counter
    cv2.setNumThreads(1)  # the processes are as many as the user wants
    taxonomy.activate(active)
    threading.Thread(target=_end_with_parent, daemon=True).start()


class _GivenUp(Exception):
    """The conversion ends before this job does."""


def _make_shard(job: Job) -> Report:
    shop, counter = _context

    def advance() -> None:
        with counter.get_lock():
            counter.value += 1
            if counter.value < 0:
                raise _GivenUp

    return make_shard(job, shop, advance)


def _end_with_parent() -> None:
    """A parent that is killed cannot tell its workers to end, and they would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
