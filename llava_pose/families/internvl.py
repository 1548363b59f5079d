"""InternVL (3, in transformers' own form): tiles of the picture's own aspect ratio, then the whole picture, each the
same number of tokens, between two marks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import GotOcr2ImageProcessorPil, InternVLConfig, InternVLForConditionalGeneration, InternVLProcessor

from ..configuration import PoseConfigMixin
from ..image_inputs import ImageInputs
from ..modeling import PoseModelMixin, register
from ..processing import PoseProcessorMixin


class InternVLPoseConfig(PoseConfigMixin, InternVLConfig):
    """An ``InternVLConfig`` and what the pose head needs."""

    model_type = "internvl_pose"


class InternVLPoseForConditionalGeneration(PoseModelMixin, InternVLForConditionalGeneration):
    """InternVL with the pose head."""

    config: InternVLPoseConfig
    config_class = InternVLPoseConfig

    def backbone(
        self, pixel_values: torch.Tensor | None = None, num_patches: torch.Tensor | None = None, **kwargs: Any
    ) -> Any:
        """As every family's: pixel values (N, tiles, 3, H, W), of which each image's first ``num_patches`` (N,) are
        real, go to transformers' model as one row of tiles."""
        if pixel_values is not None and num_patches is not None:
            real = torch.arange(pixel_values.shape[1], device=num_patches.device) < num_patches[:, None]
            pixel_values = pixel_values[real]
        return super().backbone(pixel_values=pixel_values, **kwargs)


class InternVLPoseProcessor(PoseProcessorMixin, InternVLProcessor):
    """An ``InternVLProcessor`` for images alone that knows ``<pose>`` and our chat template."""

    pixels_by = GotOcr2ImageProcessorPil
    image_mark = "<img><IMG_CONTEXT></img>\n"

    @classmethod
    def get_attributes(cls) -> list[str]:
        """Its parts: no video processor, which there is none of without torchvision."""
        return ["image_processor", "tokenizer"]

    def complete(self, config: Any) -> None:
        """Its tokens are counted by tiles. Its own chat template leaves out the marks around an image."""
        self.chat_template = None
        super().complete(config)
        self.image_seq_length = config.image_seq_length

    @property
    def image_tokens(self) -> int:
        """The most tokens an image takes: those of the most tiles and of the whole picture."""
        most = self.image_processor.max_patches
        return int(self.image_seq_length * (most + 1 if most > 1 else 1))

    @property
    def side(self) -> int:
        """The side of a square picture of the most tiles."""
        return int(self.image_processor.size["height"] * math.ceil(math.sqrt(self.image_processor.max_patches)))

    def _inputs(self, images: Sequence[Image.Image]) -> ImageInputs:
        """Pixel values (N, tiles, 3, H, W) float32 and the number of real tiles (N,)."""
        batch = self.image_processor(list(images), crop_to_patches=True, return_tensors="pt")
        counts = [int(count) for count in batch["num_patches"]]
        parts = [
            ImageInputs(
                {"pixel_values": tiles[None], "num_patches": torch.tensor([len(tiles)])},
                (self.image_seq_length * len(tiles),),
            )
            for tiles in batch["pixel_values"].split(counts)
        ]
        return ImageInputs.join(parts)


register(InternVLPoseConfig, InternVLPoseForConditionalGeneration)
