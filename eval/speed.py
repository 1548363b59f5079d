"""Time naming an image and reading its pose against the obvious ways, side by side in one run.

    python eval/speed.py            # a LLaVA-1.5 7B in shape on a GPU; one that is small, but shaped alike, on a CPU
    python eval/speed.py --quick    # smaller still, fewer repetitions

Weights are random; the output head is fitted to say drawn names as surely as a finetuned model does (``say_names``).
Times are from pixel values on, for a batch of images; every method runs once in each repetition, and a ratio is the
median over the repetitions. The last line is one JSON object:

- generate_ratio: greedy ``generate``, then a forward pass over question and answer for the state at <pose>, over ours
  (exact winner and its pose);
- per_name_ratio: a whole forward pass for each name, without a cache, over ours (every name's probability);
  per_name_cached_ratio: one prefill and a short pass on its cache for each name; both timed on some names and scaled;
- prefill_ratio: ours (exact winner and its pose) over the bare vision and prefill pass; prefill_ratio_flat: the same
  with the random head as it is, for which all names are about as likely: the worst case of the search;
- full_distribution_ratio: ours (every name's probability, the winner's pose) over the bare pass.

On a GPU, without --quick, the object is also saved in eval/results.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from eval.random_llava import Size, build, say_names
from llava_pose import conversation, taxonomy
from llava_pose.engine import Engine
from llava_pose.errors import run_cli
from llava_pose.files import write_atomic
from llava_pose.image_inputs import ImageInputs

NAMES = 200
LLAVA_7B = Size(hidden=4096, layers=32, heads=32, vocabulary=32064, images=16, repetitions=9)
SMALL = Size(hidden=512, layers=8, heads=4, vocabulary=1024, images=2, names_timed=3)
QUICK = Size(hidden=256, layers=4, heads=4, vocabulary=1024, images=2, names_timed=2)


def main() -> None:
    """Measure, and print one line a figure and the JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller model, fewer images and repetitions")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = QUICK if arguments.quick else LLAVA_7B if device.type == "cuda" else SMALL
    result = measure(size, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    for name, value in result.items():
        print(f"{name}: {value}")
    if device.type == "cuda" and not arguments.quick:
        write_atomic(Path(__file__).parent / "results" / "speed.json", json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def measure(size: Size, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """All figures for a model of this size."""
    engine = build(size, device, dtype)
    torch.manual_seed(1)
    pixels = torch.randn(size.images, 3, size.image_side, size.image_side, device=device).to(dtype)
    images = ImageInputs({"pixel_values": pixels}, (engine.processor.image_tokens,) * size.images)
    categories = taxonomy.categories()[:NAMES]
    trie = engine.name_trie(categories)
    flat = engine.model.lm_head
    fitted = say_names(engine, images, categories)

    def with_head(head: torch.nn.Module, run: Callable[[], Any]) -> Callable[[], Any]:
        def timed() -> Any:
            engine.model.lm_head = head
            return run()

        return timed

    def name(distribution: bool) -> Callable[[], Any]:
        return lambda: engine.name(images, trie, distribution=distribution)

    methods = {
        "prefill": bare_prefill(engine, pixels),
        "winner": with_head(fitted, name(False)),
        "full": with_head(fitted, name(True)),
        "generate": with_head(fitted, generate_and_read(engine, pixels)),
        "flat winner": with_head(flat, name(False)),
        "names": with_head(fitted, name_by_name(engine, pixels, categories[: size.names_timed])),
        "names cached": with_head(fitted, name_by_name_cached(engine, pixels, categories[: size.names_timed])),
    }
    times, results = interleaved(methods, size.repetitions, device)
    difference = largest_difference(results)
    assert dtype != torch.float32 or difference < 1e-3, f"the ways of scoring differ by {difference}"

    def ratio(first: str, second: str) -> float:
        return statistics.median(a / b for a, b in zip(times[first], times[second], strict=True))

    scale = len(categories) / size.names_timed
    times["names"] = [scale * value for value in times["names"]]
    times["names cached"] = [p + scale * c for p, c in zip(times["prefill"], times["names cached"], strict=True)]
    winners = results["winner"]
    return {
        "generate_ratio": ratio("generate", "winner"),
        "per_name_ratio": ratio("names", "full"),
        "per_name_cached_ratio": ratio("names cached", "full"),
        "prefill_ratio": ratio("winner", "prefill"),
        "prefill_ratio_flat": ratio("flat winner", "prefill"),
        "full_distribution_ratio": ratio("full", "prefill"),
        "milliseconds": {method: 1000 * statistics.median(values) for method, values in times.items()},
        "generated_poses": len(results["generate"]),
        "images": size.images,
        "names": len(categories),
        "prompt_tokens": engine.prompt_length(conversation.naming_messages()),
        "trie_nodes": len(trie.tokens),
        "nodes_computed": statistics.mean(found.nodes for found in winners),
        "nodes_computed_flat": statistics.mean(found.nodes for found in results["flat winner"]),
        "winner_probability": statistics.mean(found.probabilities[found.index] for found in results["full"]),
        "largest_score_difference": difference,
        "unexplored": statistics.mean(found.unexplored for found in winners),
        "parameters": sum(weight.numel() for weight in engine.model.parameters()),
        "size": asdict(size),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
    }


def bare_prefill(engine: Engine, pixels: torch.Tensor) -> Callable[[], Any]:
    """The vision and prefill pass over the question and nothing else, its inputs ready."""
    ids = prompt_ids(engine, len(pixels))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": pixels, "use_cache": True}
    return torch.inference_mode()(lambda: engine.model.backbone(**inputs))


def generate_and_read(engine: Engine, pixels: torch.Tensor) -> Callable[[], Any]:
    """Greedy generation to the end of the answer, then one pass over question and answer for the state at <pose>."""
    ids = prompt_ids(engine, len(pixels))
    tokenizer = engine.processor.tokenizer

    @torch.inference_mode()
    def run() -> Any:
        whole = engine.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=pixels,
            max_new_tokens=16,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
        mask = (whole != tokenizer.pad_token_id).long()
        # Only the pose is wanted: without the word, the vocabulary's logits would be computed at every position.
        output = engine.model(input_ids=whole, attention_mask=mask, pixel_values=pixels, logits_to_keep=1)
        return output.pose_logits.float().cpu()

    return run


def name_by_name(engine: Engine, pixels: torch.Tensor, categories: Sequence[str]) -> Callable[[], Any]:
    """The obvious scorer: for each name a whole pass, eyes included; the log-probabilities (images, names)."""
    ids = prompt_ids(engine, len(pixels))
    answers = [torch.tensor(tokens, device=ids.device) for tokens in name_tokens(engine, categories)]

    @torch.inference_mode()
    def run() -> Any:
        scores = []
        for tokens in answers:
            whole = torch.cat([ids, tokens.expand(len(ids), -1)], 1)
            output = engine.model(
                input_ids=whole,
                attention_mask=torch.ones_like(whole),
                pixel_values=pixels,
                logits_to_keep=len(tokens) + 1,
            )
            scores.append(summed(output.logits[:, :-1], tokens))
        return torch.stack(scores, 1).cpu().numpy()

    return run


def name_by_name_cached(engine: Engine, pixels: torch.Tensor, categories: Sequence[str]) -> Callable[[], Any]:
    """The same on the cache of one pass over the question, which is not timed: a short pass for each name."""
    ids = prompt_ids(engine, len(pixels))
    answers = [torch.tensor(tokens, device=ids.device) for tokens in name_tokens(engine, categories)]

    model = engine.model
    with torch.inference_mode():
        before = model.backbone(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, use_cache=True)

    @torch.inference_mode()
    def run() -> Any:
        scores = []
        for tokens in answers:
            after = model.backbone(
                input_ids=tokens.expand(len(ids), -1), past_key_values=before.past_key_values, use_cache=True
            )
            before.past_key_values.crop(-len(tokens))
            states = torch.cat([before.last_hidden_state[:, -1:], after.last_hidden_state[:, :-1]], 1)
            scores.append(summed(model.lm_head(states), tokens))
        return torch.stack(scores, 1).cpu().numpy()

    return run


def summed(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The log-probability (B,) of tokens (S,) under logits (B, S, vocabulary)."""
    steps = logits.float().log_softmax(-1)
    return steps[:, torch.arange(len(tokens)), tokens].sum(1)


def prompt_ids(engine: Engine, batch: int) -> torch.Tensor:
    """The question's tokens (batch, S)."""
    ids = engine.processor.encode(conversation.naming_messages())[0]
    return torch.from_numpy(ids).to(engine.device).expand(batch, -1)


def name_tokens(engine: Engine, categories: Sequence[str]) -> list[list[int]]:
    """Each name's tokens up to <pose>, read back from the trie."""
    trie = engine.name_trie(categories)
    return [trie.tokens[trie.path(end)].tolist() for end in trie.ends]


def interleaved(
    methods: dict[str, Callable[[], Any]], repetitions: int, device: torch.device
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each method in each repetition, after one that does not count, and its last result."""
    times: dict[str, list[float]] = {method: [] for method in methods}
    results: dict[str, Any] = {}
    for repetition in tqdm(range(repetitions + 1), desc="measure", unit="repetition"):
        for method, run in methods.items():
            synchronize(device)
            start = time.perf_counter()
            results[method] = run()
            synchronize(device)
            if repetition:
                times[method].append(time.perf_counter() - start)
    return times, results


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def largest_difference(results: dict[str, Any]) -> float:
    """By how much the ways of scoring differ in a name's log-probability, or in that of the name they find best."""
    scores = np.stack([found.log_probabilities for found in results["full"]])
    loops = [np.abs(results[way] - scores[:, : results[way].shape[1]]) for way in ("names", "names cached")]
    found = [row[naming.index] for row, naming in zip(scores, results["winner"], strict=True)]
    return float(max(loops[0].max(), loops[1].max(), (scores.max(1) - found).max()))


if __name__ == "__main__":
    run_cli(main)
