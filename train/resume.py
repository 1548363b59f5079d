"""Whether a run may go on from a checkpoint: it has to be the run that wrote it, or what comes out is neither's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from pydantic import ValidationError

from llava_pose.errors import UserError

from .checkpointing import checkpoints, read_progress
from .config import TrainConfig

CHANGEABLE = (
    "output_dir",
    "micro_batch_size",
    "gradient_checkpointing",
    "workers",
    "cache_dir",
    "trackers",
    "log_every",
    "eval_every",
    "early_stopping",
    "save_every",
    "keep_checkpoints",
    "save_dtype",
)
"""Keys that may differ from the run's beginning: they decide how it is computed, shown and kept, not what is learnt."""


def origin_of(accelerator: Accelerator, config: TrainConfig, rows: Sequence[int]) -> dict[str, Any]:
    """What the state of a run follows from: its configuration, the rows of its data sets, and how its optimizer's
    state is shared out."""
    plugin = accelerator.state.deepspeed_plugin
    return {
        "config": config.model_dump(mode="json"),
        "rows": list(rows),
        # Without DeepSpeed every process holds all of it, and any number of processes can go on.
        "sharing": None if plugin is None else f"{accelerator.num_processes} processes, ZeRO-{plugin.zero_stage}",
    }


def check_resumable(run: Path, origin: Mapping[str, Any]) -> None:
    """Raises UserError, naming key and values, where the run's newest checkpoint is not of a run like this one."""
    found = checkpoints(run)
    if not found:
        return
    newest, saved = found[-1], read_progress(found[-1])["origin"]
    try:
        begun = _flat(TrainConfig.model_validate(saved["config"]).model_dump(mode="json"))
    except ValidationError as error:
        raise UserError(f"{newest}: its configuration is of another version: {error.errors()[0]['loc']}") from error
    now = _flat(origin["config"])
    free = set(CHANGEABLE)
    if now["schedule"] == begun["schedule"] == "constant_with_warmup":
        free.add("steps")
    for key in {**begun, **now}:
        if key.split(".")[0] not in free and begun.get(key) != now.get(key):
            hint = "; with this schedule the learning rate of the steps done would have been another"
            raise UserError(
                f"{key}: {now.get(key)}, but {newest} was trained with {begun.get(key)}"
                f"{hint if key == 'steps' else ''} (to go on otherwise, start a run with a model folder as model.base)"
            )
    if saved["rows"] != origin["rows"]:
        raise UserError(f"data: {origin['rows']} rows, but {newest} was trained on {saved['rows']}")
    if saved["sharing"] != origin["sharing"]:
        spoken = [sharing or "no DeepSpeed" for sharing in (saved["sharing"], origin["sharing"])]
        raise UserError(
            f"{newest}: its optimizer state is that of {spoken[0]}, and cannot be shared out to {spoken[1]}; "
            "launch the run as it was launched"
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value})
    return flat
