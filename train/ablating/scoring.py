"""What a run's model says of every held-out object, and that kept in a file."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llava_pose.bins import PoseBins
from llava_pose.conversation import naming_messages
from llava_pose.decoding import all_names
from llava_pose.engine import Engine
from llava_pose.errors import UserError
from llava_pose.files import write_atomic
from llava_pose.geometry import pose_error
from llava_pose.image_inputs import ImageInputs
from llava_pose.scene import load_split
from train.features import FeatureCache, RowPictures, build_feature_cache

BATCH = 64


@dataclass(frozen=True)
class Scored:
    """A run's answers on N held-out objects.

    logits (N, 3, bins) float32: the pose head's at the best name; correct (N,): whether that is right; truth (N, 3) in
    radians; pictures (N,): each object's picture; steps: of the run.
    """

    logits: np.ndarray
    correct: np.ndarray
    truth: np.ndarray
    pictures: np.ndarray
    steps: int

    def errors(self, poses: np.ndarray | None = None) -> np.ndarray:
        """The joint errors (N,) in radians, π more where the class is wrong, of poses (N, 3): the model's, read as the
        product does, unless others are given."""
        read = PoseBins(self.logits.shape[-1]).decode(self.logits).pose if poses is None else poses
        return pose_error(read, self.truth) + np.where(self.correct, 0.0, math.pi)


@torch.inference_mode()
def score_model(model: Any, processor: Any, data: Path, features: Path, steps: int) -> Scored:
    """Name each object of the val split among the split's categories and read its pose, from the tower's features.

    The names and poses are those of ``Engine.name``, which works out more of each than is needed here.
    """
    rows = load_split(str(data), "val")
    objects = [items[0] for items in rows["objects"]]
    categories = sorted({item["category"] for item in objects})
    cache = FeatureCache(build_feature_cache(model, processor, RowPictures(rows, views=1), features, True))
    engine = Engine(model, processor)
    trie = engine.name_trie(categories)
    names, logits = [], []
    with torch.autocast("cpu", torch.bfloat16):
        for start in range(0, len(rows), BATCH):
            seen = torch.stack([cache.get(row, False) for row in range(start, min(start + BATCH, len(rows)))])
            pixels = ImageInputs({"vision_features": seen}, (processor.image_tokens,) * len(seen))
            state = engine.prefill([naming_messages()] * len(seen), pixels)
            best = all_names(model, state, trie, 1, np.zeros((len(seen), 0), dtype=np.int64))
            names.append(best.names[:, 0])
            logits.append(model.pose_head(best.states[:, 0]).float().numpy())
    return Scored(
        logits=np.concatenate(logits),
        correct=np.array(
            [categories[name] == item["category"] for name, item in zip(np.concatenate(names), objects, strict=True)]
        ),
        truth=np.array([[item[angle] for angle in ("azimuth", "elevation", "theta")] for item in objects]),
        pictures=np.array(rows["image_id"]),
        steps=steps,
    )


def save_scored(path: Path, scored: Scored) -> None:
    """Keep a run's answers, whole or not at all."""
    content = io.BytesIO()
    np.savez_compressed(content, **vars(scored))
    write_atomic(path, content.getvalue())


def load_scored(path: Path) -> Scored:
    """A run's answers. Raises UserError for a file that holds none."""
    try:
        with np.load(path, allow_pickle=False) as held:
            values = {name: held[name] for name in Scored.__dataclass_fields__}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: not a run's answers: {error}") from error
    return Scored(**{**values, "steps": int(values["steps"])})
