"""The joint metric on a few validation rows, while training goes on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from llava_pose.configuration import POSE_TOKEN
from llava_pose.conversation import naming_messages
from llava_pose.engine import Engine
from llava_pose.errors import UserError
from llava_pose.evaluation import predict_records, score
from llava_pose.generation import Request, answer_all
from llava_pose.scene import PosedImage

from .config import TrainConfig
from .processes import shards_weights

BATCH = 32
ASKED_ROWS = 64
"""Rows on which the model answers by itself: enough to see that it has stopped writing ``<pose>``."""
ANSWER_TOKENS = 16
"""A name and ``<pose>`` are fewer."""


class Validation:
    """A subset of the validation rows with one object, the same at every evaluation and in every run on this data, as
    even over the categories as they allow. Rows with several objects are left out: no crop shows which is meant.

    Raises UserError where there is no such row and the configuration decides by them.
    """

    def __init__(self, splits: Sequence[Any], config: TrainConfig):
        self.config = config
        single = [
            (data, row, items[0]["category"])
            for data in splits
            for row, items in enumerate(data["objects"])
            if len(items) == 1
        ]
        if not single and (config.keep_best or config.early_stopping):
            raise UserError("keep_best, early_stopping: the data has no val row with one object to evaluate on")
        categories = [category for _, _, category in single]
        self.categories = sorted(set(categories))
        self.rows = [single[place][:2] for place in spread_places(categories, config.eval_rows)]

    def evaluate(self, accelerator: Accelerator, model: Any, processor: Any) -> dict[str, float]:
        """The joint table of the subset, over all processes, each name with ``val_`` before it; {} without rows.

        ``val_pose_emission`` is the percentage of up to ``ASKED_ROWS`` rows on which the model, asked for name and
        pose, writes ``<pose>`` by itself: the other figures are read at a ``<pose>`` that evaluation puts there.
        """
        if not self.rows:
            return {}
        unwrapped = accelerator.unwrap_model(model)
        engine = Engine(unwrapped.get_base_model() if self.config.model.lora else unwrapped, processor)
        asked = self.rows[:: -(-len(self.rows) // ASKED_ROWS)]
        # Where every pass is a meeting of all processes, all of them run the same ones: on all rows.
        alike = shards_weights(accelerator)
        share = slice(None) if alike else slice(accelerator.process_index, None, accelerator.num_processes)
        half = self.config.precision == "bf16"
        with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=half):
            records = (PosedImage.from_row(data[row]) for data, row in self.rows[share])
            lines = list(predict_records(engine, records, self.categories, BATCH))
            emitted = _emitted(engine, [PosedImage.from_row(data[row]) for data, row in asked[share]])
        lines, emitted = (lines, emitted) if alike else (gather_object(lines), gather_object(emitted))
        model.train()
        scores = {**score(lines)["joint"]["average"], "pose_emission": 100.0 * sum(emitted) / len(emitted)}
        return {f"val_{name}": float(value) for name, value in scores.items()}


def spread_places(categories: Sequence[str], count: int) -> list[int]:
    """Up to ``count`` places of a list of categories, in order: of each category as many as of the others, as far as
    it has them, and within it from the first to the last."""
    places = defaultdict(list)
    for place, category in enumerate(categories):
        places[category].append(place)
    chosen: list[int] = []
    rarest_first = sorted(places.values(), key=len)
    for done, own in enumerate(rarest_first):
        quota = min(len(own), (count - len(chosen)) // (len(rarest_first) - done))
        chosen += [own[index * len(own) // quota] for index in range(quota)]
    return sorted(chosen)


def _emitted(engine: Engine, records: Sequence[PosedImage]) -> list[bool]:
    """Whether each record's greedy answer to the question for name and pose holds ``<pose>``."""
    requests = (
        Request(naming_messages(), engine.pixels([record.image]), ANSWER_TOKENS)
        for record in records
        if record.image is not None
    )
    return [POSE_TOKEN in answer.text for answer in answer_all(engine, requests)]
