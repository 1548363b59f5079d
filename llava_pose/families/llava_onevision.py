"""LLaVA-OneVision: LLaVA-NeXT's tiles in more resolutions, shrunk where they are many. Of several pictures in a
conversation each is looked at in tiles too, as one alone is."""

from __future__ import annotations

import math
from typing import Any

from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    LlavaOnevisionProcessor,
)

from ..configuration import PoseConfigMixin
from ..modeling import PoseModelMixin, register
from .llava_next import TiledProcessorMixin


class LlavaOnevisionPoseConfig(PoseConfigMixin, LlavaOnevisionConfig):
    """A ``LlavaOnevisionConfig`` and what the pose head needs."""

    model_type = "llava_onevision_pose"


class LlavaOnevisionPoseForConditionalGeneration(PoseModelMixin, LlavaOnevisionForConditionalGeneration):
    """LLaVA-OneVision with the pose head."""

    config: LlavaOnevisionPoseConfig
    config_class = LlavaOnevisionPoseConfig


class LlavaOnevisionPoseProcessor(TiledProcessorMixin, LlavaOnevisionProcessor):
    """A ``LlavaOnevisionProcessor`` for images alone that knows ``<pose>`` and our chat template."""

    pixels_by = LlavaOnevisionImageProcessorPil

    @classmethod
    def get_attributes(cls) -> list[str]:
        """Its parts: no video processor, which there is none of without torchvision."""
        return ["image_processor", "tokenizer"]

    def complete(self, config: Any) -> None:
        """Its tokens are counted by the whole picture's own, and how many tiles' worth there may be at most."""
        super().complete(config)
        self.num_image_tokens = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
        self.vision_aspect_ratio = config.vision_aspect_ratio

    @property
    def image_tokens(self) -> int:
        """No image takes more: the whole picture's, those of all tiles before they are shrunk, and one for each row."""
        tile = self.image_processor.size["height"]
        tiles = [(height // tile, width // tile) for height, width in self.image_processor.image_grid_pinpoints]
        most = int(self.vision_aspect_ratio.removeprefix("anyres_max_"))
        # transformers shrinks what has more than 1.1² times the area that is meant.
        area = min(max(rows * columns for rows, columns in tiles), 1.1**2 * most)
        rows = max(rows for rows, _ in tiles) * math.isqrt(self.num_image_tokens)
        return int(self.num_image_tokens * (1 + area)) + rows


register(LlavaOnevisionPoseConfig, LlavaOnevisionPoseForConditionalGeneration)
