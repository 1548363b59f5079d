"""The joint metric on a few validation rows, while training goes on."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from llava_pose.engine import Engine
from llava_pose.evaluation import predict_records, score
from llava_pose.scene import PosedImage

from .config import TrainConfig


def evaluate(
    accelerator: Accelerator, model: Any, processor: Any, splits: list[Any], config: TrainConfig
) -> dict[str, float]:
    """The joint metric on a fixed, spread subset of the validation rows with one object, over all processes."""
    unwrapped = accelerator.unwrap_model(model)
    engine = Engine(unwrapped.get_base_model() if config.model.lora else unwrapped, processor)
    single = [
        (data, row, items[0]["category"])
        for data in splits
        for row, items in enumerate(data["objects"])
        if len(items) == 1
    ]
    if not single:
        model.train()
        return {}
    chosen = single[:: max(1, len(single) // config.eval_rows)][: config.eval_rows]
    categories = sorted({category for _, _, category in single})
    mine = chosen[accelerator.process_index :: accelerator.num_processes]
    records = (PosedImage.from_row(data[row]) for data, row, _ in mine)
    with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        lines = list(predict_records(engine, records, categories, batch_size=32))
    lines = gather_object(lines)
    model.train()
    average = score(lines)["joint"]["average"]
    return {f"val_{name}": float(value) for name, value in average.items()}
