"""An answer's poses read a second time, in the mirror image: both readings together err less than one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .bins import PoseBins
from .image_inputs import ImageInputs
from .processing import assistant_message
from .sides import swapped_sides

if TYPE_CHECKING:
    from .engine import Engine


def mirrored_logits(
    engine: Engine, messages: Sequence[dict[str, Any]], mirrored: ImageInputs, tokens: Sequence[int]
) -> torch.Tensor:
    """Pose logits (3, num_bins), turned back to the images as they are, at the last ``<pose>`` of an answer so far.

    The conversation before it (``messages``) is held about its ``mirrored`` images instead, and left and right change
    places in its words and in those of the answer (``tokens``), as in training. A pass over all of it: nothing of the
    conversation itself can be used again.
    """
    processor, model = engine.processor, engine.model
    said = swapped_sides(processor.tokenizer.decode(list(tokens)))
    ids = processor.encode([*map(_swapped, messages), assistant_message(said)], mirrored.tokens)[0]
    ids = ids[: np.flatnonzero(ids == processor.pose_token_id)[-1] + 1]
    outputs = model.backbone(
        input_ids=torch.from_numpy(ids)[None].to(engine.device), **mirrored.to(engine.device, model.dtype).tensors
    )
    logits: torch.Tensor = PoseBins(model.config.pose_bins).mirror(model.pose_head(outputs.last_hidden_state[0, -1:]))
    return logits[0]


def _swapped(message: dict[str, Any]) -> dict[str, Any]:
    parts = [
        {**part, "text": swapped_sides(part["text"])} if part["type"] == "text" else part for part in message["content"]
    ]
    return {**message, "content": parts}
