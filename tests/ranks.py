"""Training runs in processes of their own, forked from a server that has imported everything: a start costs a moment.

What a launcher would put into the environment is put there; the launchers themselves are for ``tests/invariant``.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import yaml

LIMIT = 120
"""Seconds until a process that should have ended is taken to hang. The machine may be busy."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.ranks", "train.finetune"])


def free_port() -> str:
    """A port nobody listens on."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return str(opened.getsockname()[1])


def start(
    values: Mapping[str, object],
    *flags: str,
    processes: int = 1,
    zero: int | None = None,
    first: Callable[[], None] | None = None,
) -> list[ForkServerProcess]:
    """Begin a run, one process a rank: without or (``zero``) with DeepSpeed of that stage. What they say goes to
    ``NAME.RANK.txt`` beside the run's folder. ``first``, a function of a module, is called in each of them before."""
    run = Path(str(values["output_dir"]))
    config = run.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(dict(values)))
    port = free_port()
    started = []
    for rank in range(processes):
        environment = {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "CUDA_VISIBLE_DEVICES": "",
        }
        if zero is not None:
            environment |= {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(zero)}
        arguments = ["--config", str(config), *flags]
        said = str(run.with_name(f"{run.name}.{rank}.txt"))
        environment = environment if processes > 1 else {}
        process = _context.Process(target=_train, args=(arguments, environment, said, first))
        process.start()
        started.append(process)
    return started


def finish(values: Mapping[str, object], started: Sequence[ForkServerProcess]) -> list[int]:
    """Wait for a run's processes; their exit codes. A process that hangs is killed, and the test fails."""
    for process in started:
        process.join(LIMIT)
    hung = [process for process in started if process.exitcode is None]
    for process in hung:
        process.kill()
        process.join()
    assert not hung, said(values)
    return [process.exitcode or 0 for process in started]


def said(values: Mapping[str, object]) -> str:
    """What a run's processes said, the end of it."""
    run = Path(str(values["output_dir"]))
    return "\n".join(path.read_text()[-3000:] for path in sorted(run.parent.glob(f"{run.name}.?.txt")))


def train(values: Mapping[str, object], *flags: str, processes: int = 1, zero: int | None = None) -> Path:
    """A run from its beginning to its end; its folder."""
    codes = finish(values, start(values, *flags, processes=processes, zero=zero))
    assert codes == [0] * processes, said(values)
    return Path(str(values["output_dir"]))


def _train(
    arguments: Sequence[str], environment: Mapping[str, str], said: str, first: Callable[[], None] | None
) -> None:
    os.environ.update(environment)
    with open(said, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from llava_pose.errors import run_cli
    from train import finetune

    if first is not None:
        first()
    sys.argv = ["finetune.py", *arguments]
    run_cli(finetune.main)
