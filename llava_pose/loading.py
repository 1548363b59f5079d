"""Work for a model that is never kept waiting: batches of like length, read ahead of need."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from .errors import UserError

Item = TypeVar("Item")
Value = TypeVar("Value")


def batches_by_tokens(lengths: Sequence[int], max_batch_tokens: int, extra: int = 0) -> list[list[int]]:
    """Indices 0 … N − 1 of N prompts in batches of neighbours in length, the longest first.

    lengths: each prompt's tokens, the image's included; extra: what each needs besides, such as
    ``decoding.nodes_at_once``. A batch's rows times its longest row's tokens never exceed ``max_batch_tokens``, which
    bounds the memory of cache and activations. A pure function of its arguments: every process of a run makes the same
    batches. Raises UserError where one prompt alone is too long.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    if order and lengths[order[0]] + extra > max_batch_tokens:
        raise UserError(
            f"--max-batch-tokens: {max_batch_tokens} is less than one image needs: "
            f"{lengths[order[0]]} tokens of prompt and {extra} of names"
        )
    batches: list[list[int]] = []
    for index in order:
        # The first of a batch is its longest.
        if batches and (len(batches[-1]) + 1) * (lengths[batches[-1][0]] + extra) <= max_batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def read_ahead(read: Callable[[Item], Value], items: Iterable[Item], workers: int) -> Iterator[Value]:
    """``read`` of every item, in order, made by threads while the caller works on earlier ones.

    Decoding, resizing and normalising images leave Python's lock free for most of their time, so threads do. At most
    ``workers + 1`` values are held at a time, and items are taken no sooner. What ``read`` raises is raised in its
    item's turn; what is to outlive it, such as a file that is no image, ``read`` returns as a value. 0 workers: read in
    the caller's own thread.
    """
    if workers < 1:
        yield from map(read, items)
        return
    waiting: deque[Future[Value]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="read-ahead") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # Left early, by an error or by the caller: what has not begun never does.
            pool.shutdown(wait=True, cancel_futures=True)
