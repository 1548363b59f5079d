"""What a run takes on each GPU, and what its GPUs send each other: sums, before anything is downloaded or started.

    python train/memory.py --config train/recipes/llava-1.5-7b-lora-8gpu.yaml
    python train/memory.py --config train/recipes/llava-1.5-13b-lora-8gpu.yaml --zero 3 --gpus 8,64,512

Weights are counted on a model of the real sizes without memory; gradients, optimizer and kept activations follow from
how they are held (``Memory``, ``Traffic``). Sums, not measurements: the allowance says what they leave out.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, LlamaConfig, LlavaConfig

from llava_pose.arguments import CommandParser, positive_number, whole_number
from llava_pose.errors import UserError, run_cli
from llava_pose.families import family_of, has_head
from llava_pose.folders import model_source
from train.config import TrainConfig, load_config
from train.model import mark_trained

MACHINE = 8
"""GPUs a machine."""

LLAMA_SIZES = {
    "llava-hf/llava-1.5-7b-hf": (4096, 11008, 32, 32),
    "llava-hf/llava-1.5-13b-hf": (5120, 13824, 40, 40),
}
"""Hidden size, MLP size, layers and heads of released models, whose sums need no network."""

VOCABULARY = 32064  # of these
ADAM = 8  # bytes a trained weight: two moments in float32
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)  # bytes a weight: four bits, an 8-bit scale for 64, a float32 one for 256 of these
BUCKET = 50_000_000  # elements, of train/launch/zero2.json and zero3.json
LIVE = 500_000_000  # weights that ZeRO-3 keeps gathered at most, of zero3.json
ALLOWANCE = 1.5 * 2**30  # CUDA's context, the libraries' workspaces, fragments; an estimate


@dataclass(frozen=True)
class Counts:
    """Weights of a model: frozen ones, of these in four bits; trained ones; and the language model's sizes."""

    frozen: int
    packed: int
    trained: int
    language: int
    text: Any
    tower: Any


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU, at the step's fullest moment."""

    frozen_weights: float
    trained_weights: float
    gradients: float
    optimizer: float
    communication: float
    kept_activations: float
    working_activations: float
    logits: float
    allowance: float = ALLOWANCE

    @property
    def total(self) -> float:
        return sum(vars(self).values())


@dataclass(frozen=True)
class Traffic:
    """Bytes that every GPU receives in an optimizer step, seconds on the slowest link, and seconds of computing."""

    received: float
    seconds: float
    computing: float


def main() -> None:
    """Print both tables in Markdown."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="YAML", help="a recipe")
    parser.add_argument("--gpus", type=several, default=[8], metavar="N,N,…", help=f"{MACHINE} a machine")
    parser.add_argument("--zero", type=int, choices=[0, 2, 3], default=2, help="DeepSpeed's stage, on more than one")
    parser.add_argument("--text-tokens", type=whole_number, default=128, metavar="N", help="of a row, half supervised")
    parser.add_argument("--link", type=positive_number, default=20, metavar="GB/S", help="between GPUs of a machine")
    parser.add_argument("--network", type=positive_number, default=25, metavar="GB/S", help="of a machine")
    parser.add_argument("--tflops", type=positive_number, default=60, metavar="T", help="that a GPU sustains")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings laid over the recipe's")
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.overrides)
    counts = count(config)
    stages = {gpus: arguments.zero if gpus > 1 else 0 for gpus in arguments.gpus}
    wide = bytes_of(config)
    print(
        f"{config.model.base}: {counts.frozen / 1e9:.2f} B frozen weights ({config.model.base_dtype}), "
        f"{counts.trained / 1e6:.0f} M trained (fp32); {config.micro_batch_size} rows of {image_tokens(counts)} + "
        f"{arguments.text_tokens} tokens a GPU. While it is loaded, every process holds the base in the machine's own "
        f"memory: {counts.frozen * wide / 1e9:.0f} GB each.\n"
    )
    for line in memory_table(config, counts, stages, arguments.text_tokens):
        print(line)
    print()
    for line in traffic_table(config, counts, stages, arguments):
        print(line)


def several(text: str) -> list[int]:
    """Whole numbers with commas between them: the type of an argument."""
    return [whole_number(part) for part in text.split(",")]


def count(config: TrainConfig) -> Counts:
    """Count a run's weights on a model of its sizes that takes no memory.

    Raises UserError where the configuration trains without adapters, or its base is neither known nor to be opened.
    """
    if config.model.lora is None or config.model.base is None:
        raise UserError("model: the sums are for adapters on a base (model.base and model.lora)")
    released = base_config(config.model.base)
    family = family_of(released, config.model.base)
    size = config.model.pose_hidden_size
    pose = {"pose_token_id": 0} | ({"pose_hidden_size": size} if size else {})
    with torch.device("meta"):
        model = family.model(released if has_head(released) else family.config.with_pose(released, **pose))
        model = mark_trained(model, config)
    weights = dict(model.named_parameters())
    frozen = {name: value for name, value in weights.items() if not value.requires_grad}
    layers = {name: value for name, value in frozen.items() if "language_model.layers." in name and value.ndim == 2}
    return Counts(
        frozen=sum(value.numel() for value in frozen.values()),
        packed=sum(value.numel() for value in layers.values()) if config.model.base_dtype == "nf4" else 0,
        trained=sum(value.numel() for value in weights.values() if value.requires_grad),
        language=sum(value.numel() for name, value in frozen.items() if "language_model.layers." in name),
        text=model.config.get_text_config(),
        tower=model.config.vision_config,
    )


def base_config(base: str) -> Any:
    """The base's configuration: of the released LLaVA-1.5 without opening anything, of others from their files."""
    if base not in LLAMA_SIZES:
        return AutoConfig.from_pretrained(model_source(base), trust_remote_code=False)
    hidden, mlp, layers, heads = LLAMA_SIZES[base]
    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
    )
    return LlavaConfig(text_config=text)  # CLIP ViT-L/14 at 336 pixels is its own default


def bytes_of(config: TrainConfig) -> int:
    """Bytes of a frozen weight that is not in four bits."""
    return 4 if config.model.base_dtype == "fp32" else 2


def image_tokens(counts: Counts) -> int:
    """Tokens of an image: one a patch, of one square."""
    return int((counts.tower.image_size // counts.tower.patch_size) ** 2)


def kept_by_layer(text: Any, rank: int, mask: int = 1) -> int:
    """Bytes that one Llama layer with LoRA and dropout on all seven matrices keeps for the backward pass, a token.

    Frozen matrices keep nothing of their input. In bfloat16: queries, keys, values and what attention gives; what goes
    into each adapter and what its first matrix gives; gate, up, and the gate's activation. In float32: what goes into
    both norms, their scales, attention's scale a head. And the dropout masks, of ``mask`` bytes (1 on a GPU).
    """
    hidden, mlp, head = text.hidden_size, text.intermediate_size, text.head_dim
    keys = text.num_key_value_heads * head
    queries = text.num_attention_heads * head
    attention = 2 * (2 * queries + 2 * keys) + 4 * text.num_attention_heads
    adapters = (2 + mask) * (5 * hidden + queries + mlp) + 2 * 7 * rank
    return attention + adapters + 2 * 3 * mlp + 2 * 4 * hidden + 2 * 4


def memory(config: TrainConfig, counts: Counts, gpus: int, zero: int, text_tokens: int) -> Memory:
    """The sum for one GPU."""
    lora = config.model.lora
    assert lora is not None
    wide = bytes_of(config)
    rows, length = config.micro_batch_size, image_tokens(counts) + text_tokens
    tokens, hidden, layers = rows * length, counts.text.hidden_size, counts.text.num_hidden_layers
    weights, gradients, optimizer = (gpus if zero >= least else 1 for least in (3, 2, 1))
    layer = tokens * kept_by_layer(counts.text, lora.rank)
    checkpoints = tokens * hidden * 2 * layers
    tower = rows * (image_tokens(counts) + 1) * counts.tower.hidden_size * wide * (counts.tower.num_hidden_layers + 1)
    # With four bits, one matrix at a time is taken out of them.
    unpacked = 2 * hidden * counts.text.intermediate_size if counts.packed else 0
    return Memory(
        frozen_weights=((counts.frozen - counts.packed) * wide + counts.packed * NF4) / weights,
        trained_weights=counts.trained * 4 / weights,
        gradients=counts.trained * 4 / gradients,
        # DeepSpeed steps on a float32 copy of its share.
        optimizer=counts.trained * (ADAM + (4 if zero else 0)) / optimizer,
        communication=(BUCKET * 4 if zero else 0) + (LIVE * wide + BUCKET * wide if zero == 3 else 0),
        kept_activations=checkpoints if config.gradient_checkpointing else layer * layers,
        # A layer computed again, and the gradients of as much; the tower has passed by then.
        working_activations=max(tower, layer * (2 if config.gradient_checkpointing else 1) + unpacked),
        # Logits in half precision, then in full, their log-softmax and its gradient.
        logits=rows * text_tokens / 2 * counts.text.vocab_size * (2 + 3 * 4),
    )


def traffic(config: TrainConfig, counts: Counts, gpus: int, zero: int, options: Any) -> Traffic:
    """What an optimizer step sends, in rings: of an all-gather or a reduce-scatter of B bytes over N GPUs everyone
    receives B (N − 1) / N, and a machine's network carries that once.

    ZeRO-2 and ZeRO-3 reduce the trained weights' gradients (float32) in every micro batch. ZeRO-2 gathers the updated
    trained weights once a step. ZeRO-3 gathers all weights for forward and for backward, and once more where
    checkpointing computes a layer again.
    """
    accumulation = max(1, config.batch_size // (config.micro_batch_size * gpus))
    trained = counts.trained * 4
    weights = counts.frozen * bytes_of(config) + trained
    passes = 3 if config.gradient_checkpointing else 2
    sent = trained * accumulation + (weights * passes * accumulation if zero == 3 else trained)
    received = sent * (gpus - 1) / gpus
    slowest = options.link if gpus <= MACHINE else min(options.link, options.network)
    # Two operations a weight and token forward; as many backward, where frozen weights have no gradients of their own.
    operations = 2 * (counts.language + counts.trained) * passes
    tokens = config.micro_batch_size * accumulation * (image_tokens(counts) + options.text_tokens)
    return Traffic(received, received / (slowest * 1e9), operations * tokens / (options.tflops * 1e12))


def memory_table(config: TrainConfig, counts: Counts, stages: dict[int, int], text_tokens: int) -> list[str]:
    """Gibibytes on each GPU, a column a number of GPUs."""
    sums = [memory(config, counts, gpus, zero, text_tokens) for gpus, zero in stages.items()]
    rows = {name.replace("_", " "): [vars(one)[name] for one in sums] for name in vars(sums[0])}
    rows["**total**"] = [one.total for one in sums]
    return table("GiB on each GPU", stages, {name: [n / 2**30 for n in cells] for name, cells in rows.items()})


def traffic_table(config: TrainConfig, counts: Counts, stages: dict[int, int], options: Any) -> list[str]:
    """An optimizer step's communication, a column a number of GPUs."""
    sums = [traffic(config, counts, gpus, zero, options) for gpus, zero in stages.items()]
    links = f"{options.link:g} GB/s in a machine, {options.network:g} GB/s between"
    rows: dict[str, list[Any]] = {
        "rows": [max(config.batch_size, config.micro_batch_size * gpus) for gpus in stages],
        "GB that each GPU receives": [one.received / 1e9 for one in sums],
        f"seconds of it at {links}": [one.seconds for one in sums],
        f"seconds of computing at {options.tflops:g} TFLOP/s": [one.computing for one in sums],
    }
    return table("an optimizer step", stages, rows)


def table(title: str, stages: dict[int, int], rows: dict[str, list[Any]]) -> list[str]:
    """The lines of a Markdown table, a column a number of GPUs."""
    columns = [f"{gpus} GPU{'s' * (gpus > 1)}{f', ZeRO-{zero}' if zero else ''}" for gpus, zero in stages.items()]
    lines = [f"| {title} | {' | '.join(columns)} |", "|---|" + "---|" * len(stages)]
    for name, cells in rows.items():
        lines.append(f"| {name} | {' | '.join(str(n) if isinstance(n, int) else f'{n:.2f}' for n in cells)} |")
    return lines


if __name__ == "__main__":
    run_cli(main)
