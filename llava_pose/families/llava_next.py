"""LLaVA-NeXT (1.6): the picture whole and in tiles, as many as the best of a few resolutions has; its tokens without
the padding, with one more at the end of each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image
from transformers import (
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
)

from ..configuration import PoseConfigMixin
from ..image_inputs import ImageInputs
from ..modeling import PoseModelMixin, register
from ..processing import PoseProcessorMixin


class LlavaNextPoseConfig(PoseConfigMixin, LlavaNextConfig):
    """A ``LlavaNextConfig`` and what the pose head needs."""

    model_type = "llava_next_pose"


class LlavaNextPoseForConditionalGeneration(PoseModelMixin, LlavaNextForConditionalGeneration):
    """LLaVA-NeXT with the pose head."""

    config: LlavaNextPoseConfig
    config_class = LlavaNextPoseConfig


class TiledProcessorMixin(PoseProcessorMixin):
    """Pictures in tiles of one of the resolutions in ``image_grid_pinpoints``: LLaVA-NeXT's and OneVision's."""

    _get_number_of_features: Any
    vision_feature_select_strategy: str

    def complete(self, config: Any) -> None:
        """Its tokens are counted by the resolutions, which model and processor must agree on."""
        super().complete(config)
        self.vision_feature_select_strategy = config.vision_feature_select_strategy
        self.image_processor.image_grid_pinpoints = [list(size) for size in config.image_grid_pinpoints]

    @property
    def image_tokens(self) -> int:
        """The most tokens an image takes: those of one that fills its tiles."""
        return max(self._tokens(*size) for size in self.image_processor.image_grid_pinpoints)

    @property
    def side(self) -> int:
        """The longest side of any of the resolutions."""
        return int(max(max(size) for size in self.image_processor.image_grid_pinpoints))

    def _inputs(self, images: Sequence[Image.Image]) -> ImageInputs:
        """Pixel values (N, tiles, 3, H, W) float32 and image sizes (N, 2)."""
        batch = self.image_processor(list(images), return_tensors="pt")
        tensors = {name: batch[name] for name in ("pixel_values", "image_sizes")}
        return ImageInputs(tensors, tuple(self._tokens(*size) for size in batch["image_sizes"].tolist()))

    def _tokens(self, height: int, width: int) -> int:
        size = self.image_processor.crop_size if self.image_processor.do_center_crop else self.image_processor.size
        count = self._get_number_of_features(height, width, size["height"], size["width"])
        return int(count) - (self.vision_feature_select_strategy == "default")


class LlavaNextPoseProcessor(TiledProcessorMixin, LlavaNextProcessor):
    """A ``LlavaNextProcessor`` that knows ``<pose>`` and our chat template."""

    pixels_by = LlavaNextImageProcessorPil

    def complete(self, config: Any) -> None:
        """Its tokens are counted by patches, and the tower may have a class token that is left out."""
        super().complete(config)
        self.patch_size = config.vision_config.patch_size
        self.num_additional_image_tokens = int(config.vision_feature_select_strategy == "default")


register(LlavaNextPoseConfig, LlavaNextPoseForConditionalGeneration)
