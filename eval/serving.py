"""Measure the server's throughput with one client and with many at once, in one run.

    python eval/serving.py                       # 32 clients, a tiny model with random weights
    python eval/serving.py --quick               # fewer requests
    python eval/serving.py --model embedded      # the model that comes with the package, or any other

Starts ``llava-pose serve`` on a free port of this machine and asks it from this process: short answers about pictures
(``/v1/chat/completions``) and objects to be named (``/v1/pose``). Each request shows a picture that the server has not
seen, so that nothing is answered from what it kept. One client and many take turns, and a ratio is the median over the
turns. The clients share the machine with the server: what they cost is part of the figures.

The last line is one JSON object: chat_ratio and pose_ratio (requests a second of all clients together over those of one
alone), and for both kinds the requests a second, the median and the 95th percentile of the seconds a request took.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import itertools
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
from PIL import Image
from tqdm import tqdm

import llava_pose
from llava_pose import checkpoint
from llava_pose.arguments import whole_number
from llava_pose.assembly import assemble
from llava_pose.errors import UserError, run_cli

SAMPLE = Path(llava_pose.__file__).parent / "assets" / "samples" / "car.jpg"
QUESTION = "How far must the car turn to face me?"
TOKENS = 24
TINY = {
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
}
PATIENCE = 300.0


class Turn(NamedTuple):
    """So many clients asking for a while: requests a second, and the seconds each took."""

    per_second: float
    seconds: list[float]


def main() -> None:
    """Measure, and print one line a figure and the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="embedded, a model folder or a hub name; a tiny one is made without")
    parser.add_argument("--clients", type=whole_number, default=32, help="how many ask at once (64 at most)")
    parser.add_argument("--quick", action="store_true", help="fewer requests and turns")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.model is None:
            checkpoint.save(*assemble(TINY), folder)
        with served(arguments.model or folder) as url:
            result = asyncio.run(measure(url, arguments.clients, arguments.quick))
    for name, value in result.items():
        print(f"{name}: {value}")
    print(json.dumps(result))


@contextmanager
def served(model: str) -> Iterator[str]:
    """The URL of a server of this model, which must end well when it is told to."""
    command = [sys.executable, "-m", "llava_pose.cli", "serve", "--port", "0", "--model", model]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        if found is None:
            raise UserError(f"the server did not start: {' '.join(command[1:])} tells why")
        yield found[0]
        process.send_signal(signal.SIGTERM)
        if process.wait(PATIENCE) != 0:
            raise UserError(f"the server ended with exit code {process.returncode}")
    finally:
        process.kill()
        process.wait()


async def measure(url: str, clients: int, quick: bool) -> dict[str, Any]:
    """All figures of a server."""
    turns, alone, together = (2, 8, 2) if quick else (5, 16, 6)
    bodies = {"chat": ("/v1/chat/completions", chat_bodies()), "pose": ("/v1/pose", pose_bodies())}
    result: dict[str, Any] = {"clients": clients}
    bar = tqdm(total=2 * turns * 2, desc="measure", unit="turn")
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=limits) as client:
        for kind, (path, body) in bodies.items():
            await turn(client, path, body, clients, 1)  # does not count
            ones, manys = [], []
            for _ in range(turns):
                ones.append(await turn(client, path, body, 1, alone))
                bar.update()
                manys.append(await turn(client, path, body, clients, together))
                bar.update()
            result |= figures(kind, ones, manys)
    bar.close()
    return result


async def turn(client: httpx.AsyncClient, path: str, bodies: Iterator[Any], clients: int, each: int) -> Turn:
    """Let so many clients ask one request after the other, ``each`` so many."""
    ready = [[next(bodies) for _ in range(each)] for _ in range(clients)]
    seconds: list[float] = []

    async def ask(own: list[bytes]) -> None:
        for body in own:
            start = time.perf_counter()
            response = await client.post(path, content=body, headers={"Content-Type": "application/json"})
            response.raise_for_status()
            seconds.append(time.perf_counter() - start)

    start = time.perf_counter()
    await asyncio.gather(*map(ask, ready))
    return Turn(clients * each / (time.perf_counter() - start), seconds)


def figures(kind: str, ones: list[Turn], manys: list[Turn]) -> dict[str, Any]:
    """What is told of one kind of request."""
    ratios = [many.per_second / one.per_second for one, many in zip(ones, manys, strict=True)]
    told: dict[str, Any] = {f"{kind}_ratio": round(statistics.median(ratios), 2)}
    for name, turns in (("one", ones), ("many", manys)):
        seconds = [value for each in turns for value in each.seconds]
        told[f"{kind}_{name}"] = {
            "requests_per_second": round(statistics.median(each.per_second for each in turns), 2),
            "median_seconds": round(statistics.median(seconds), 4),
            "p95_seconds": round(float(np.percentile(seconds, 95)), 4),
        }
    return told


def chat_bodies() -> Iterator[bytes]:
    """Questions about pictures that differ."""
    for url in pictures():
        picture = {"type": "image_url", "image_url": {"url": url}}
        messages = [{"role": "user", "content": [picture, {"type": "text", "text": QUESTION}]}]
        yield json.dumps({"messages": messages, "max_tokens": TOKENS}).encode()


def pose_bodies() -> Iterator[bytes]:
    """Objects to be named in pictures that differ."""
    for url in pictures():
        yield json.dumps({"image": url}).encode()


def pictures() -> Iterator[str]:
    """The sample, with something else in its first pixels each time, as data URLs."""
    with Image.open(SAMPLE) as opened:
        pixels = np.array(opened.convert("RGB"))
    for number in itertools.count():
        pixels[0, :32] = np.random.default_rng(number).integers(0, 256, (32, 3))
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=90)
        yield f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"


if __name__ == "__main__":
    run_cli(main)
