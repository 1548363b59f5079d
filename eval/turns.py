"""Time a conversation's later turns against its first, and answers side by side against one after the other.

    python eval/turns.py            # a LLaVA-1.5 7B in shape on a GPU; one that is small, but shaped alike, on a CPU
    python eval/turns.py --quick    # smaller still, fewer repetitions

Weights are random, answers have a fixed number of tokens. The ways are measured in turns in one process, and a ratio is
the median over the repetitions. The last line is one JSON object:

- follow_up_ratio: seconds to the first token of a conversation's first turn (an image and a question) over those of its
  second turn (a short question more), pictures prepared; follow_up_prompt_tokens: what the second turn holds in all;
- throughput_ratio: seconds that a number of conversations about different pictures take one after the other over those
  that they take side by side; tokens_per_second: side by side, over all of them.

On a GPU, without --quick, the object is also saved in eval/results.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from eval.random_llava import Size, build
from eval.speed import LLAVA_7B, QUICK, SMALL, synchronize
from llava_pose.engine import Engine
from llava_pose.errors import run_cli
from llava_pose.files import write_atomic
from llava_pose.generation import Request, answer_all
from llava_pose.image_inputs import ImageInputs
from llava_pose.processing import assistant_message, user_message

QUESTION = "Which way is the car facing, and how far must it turn to face me?"
ANSWER = "The car <pose> must turn about 45 degrees to its own right."
"""What the first turn's answer is told to have been. The model wrote other tokens, as it does where words are made to
agree with poses: from the answer on, the second turn is run anew."""
FOLLOW_UP = "And the train beside it?"
CONVERSATIONS, TOKENS = 32, 32


def main() -> None:
    """Measure, and print one line a figure and the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller model, fewer conversations and repetitions")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = QUICK if arguments.quick else LLAVA_7B if device.type == "cuda" else SMALL
    engine = build(size, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    # An answer that is cut short by chance would be measured against a whole one.
    engine.stop_token_id = -1
    conversations, repetitions = (4, 2) if arguments.quick else (CONVERSATIONS, 5)
    result = {
        **turns(engine, size, repetitions),
        **throughput(engine, size, conversations, repetitions),
        "conversations": conversations,
        "answer_tokens": TOKENS,
        "size": asdict(size),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
    }
    for name, value in result.items():
        print(f"{name}: {value}")
    if device.type == "cuda" and not arguments.quick:
        write_atomic(Path(__file__).parent / "results" / "turns.json", json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def turns(engine: Engine, size: Size, repetitions: int) -> dict[str, Any]:
    """The first token of the first turn and of the second."""
    first: list[float] = []
    second: list[float] = []
    # The first repetition does not count.
    for seed in tqdm(range(repetitions + 1), desc="turns", unit="repetition"):
        image = picture(engine, size, seed)
        talk = [user_message(QUESTION, images=1)]
        answers = engine.stream(talk, image, TOKENS)
        first.append(seconds(lambda answers=answers: next(answers), engine))  # type: ignore[misc]
        assert list(answers)[-1].finished
        talk = [*talk, assistant_message(ANSWER), user_message(FOLLOW_UP)]
        second.append(seconds(lambda talk=talk, image=image: next(engine.stream(talk, image, 1)), engine))  # type: ignore[misc]
    return {
        "follow_up_ratio": median_ratio(first, second),
        "first_token_milliseconds": {"first turn": milliseconds(first), "second turn": milliseconds(second)},
        "first_prompt_tokens": engine.prompt_length(talk[:1]),
        "follow_up_prompt_tokens": engine.prompt_length(talk),
    }


def throughput(engine: Engine, size: Size, conversations: int, repetitions: int) -> dict[str, Any]:
    """Conversations one after the other, and side by side."""
    talk = [user_message(QUESTION, images=1)]
    requests = [Request(talk, picture(engine, size, seed), TOKENS) for seed in range(conversations)]
    one: list[float] = []
    together: list[float] = []
    for _ in tqdm(range(repetitions + 1), desc="throughput", unit="repetition"):
        for times, width in ((one, 1), (together, conversations)):
            times.append(seconds(lambda width=width: list(answer_all(engine, requests, width)), engine))  # type: ignore[misc]
    return {
        "throughput_ratio": median_ratio(one, together),
        "tokens_per_second": round(conversations * TOKENS / statistics.median(together[1:]), 1),
    }


def picture(engine: Engine, size: Size, seed: int) -> ImageInputs:
    """A picture of noise, prepared."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(1, 3, size.image_side, size.image_side, generator=generator)
    return ImageInputs({"pixel_values": pixels}, (engine.processor.image_tokens,))


def seconds(run: Callable[[], Any], engine: Engine) -> float:
    """How long it takes, until the device has done it."""
    synchronize(engine.device)
    start = time.perf_counter()
    run()
    synchronize(engine.device)
    return time.perf_counter() - start


def median_ratio(first: list[float], second: list[float]) -> float:
    """The median over the repetitions but the first one."""
    return statistics.median(a / b for a, b in zip(first[1:], second[1:], strict=True))


def milliseconds(times: list[float]) -> float:
    """Their median, but for the first."""
    return round(1000 * statistics.median(times[1:]), 2)


if __name__ == "__main__":
    run_cli(main)
