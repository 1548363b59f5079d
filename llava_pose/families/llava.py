"""LLaVA-1.5: one square of pixels an image, a fixed number of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .. import vision  # noqa: F401  registers the embedded tower's configuration, which a saved one may hold
from ..configuration import PoseConfigMixin
from ..image_inputs import ImageInputs
from ..modeling import PoseModelMixin, register
from ..processing import PoseProcessorMixin, upright


class LlavaPoseConfig(PoseConfigMixin, LlavaConfig):
    """A ``LlavaConfig`` and what the pose head needs."""

    model_type = "llava_pose"


class LlavaPoseForConditionalGeneration(PoseModelMixin, LlavaForConditionalGeneration):
    """LLaVA with the pose head. Opens released ``llava`` checkpoints: their key names are converted on loading and
    kept in that form on disk, and nothing but the pose head is newly initialised."""

    config: LlavaPoseConfig
    config_class = LlavaPoseConfig

    def backbone(self, vision_features: torch.Tensor | None = None, **kwargs: Any) -> Any:
        """As every family's. ``vision_features`` (images, tokens, channels), the tower's selected features, stand in
        for ``pixel_values``."""
        if vision_features is not None:
            projected = self.model.multi_modal_projector(vision_features.to(self.projector_dtype))
            kwargs["mm_encoder_outputs"] = {"image": BaseModelOutputWithPooling(pooler_output=projected.split(1))}
        return super().backbone(**kwargs)

    @property
    def projector_dtype(self) -> torch.dtype:
        """The precision of the projector's weights."""
        return next(self.model.multi_modal_projector.parameters()).dtype

    def save_pretrained(self, save_directory: Any, *, state_dict: Any = None, **kwargs: Any) -> None:  # type: ignore[override]
        """As transformers' own, without the vision tower's weights when they are those kept in this package."""
        if self.config.tower_source is not None:
            state = self.state_dict() if state_dict is None else state_dict
            state_dict = {name: value for name, value in state.items() if ".vision_tower." not in name}
        super().save_pretrained(save_directory, state_dict=state_dict, **kwargs)


class LlavaPoseProcessor(PoseProcessorMixin, LlavaProcessor):
    """A ``LlavaProcessor`` that knows ``<pose>`` and our chat template."""

    pixels_by = CLIPImageProcessorPil

    def complete(self, config: Any) -> None:
        """Its tokens are counted by the patches and by what is selected of the tower's features."""
        super().complete(config)
        strategy = config.vision_feature_select_strategy
        self.patch_size = self.patch_size or config.vision_config.patch_size
        self.vision_feature_select_strategy = strategy
        self.num_additional_image_tokens = int(strategy == "default")

    @property
    def image_tokens(self) -> int:
        """The number of tokens an image takes, from the sizes this processor works with."""
        size = self._size
        count = (size["height"] // self.patch_size) * (size["width"] // self.patch_size)
        return count + self.num_additional_image_tokens - (self.vision_feature_select_strategy == "default")

    @property
    def side(self) -> int:
        """The side in pixels of the square the model looks at."""
        return int(max(self._size["height"], self._size["width"]))

    @property
    def _size(self) -> Any:
        return self.image_processor.crop_size if self.image_processor.do_center_crop else self.image_processor.size

    def _inputs(self, images: Sequence[Image.Image]) -> ImageInputs:
        """Pixel values (N, 3, H, W) float32 of N images, each padded to a square first."""
        values = self.image_processor([square(image) for image in images], return_tensors="pt")["pixel_values"]
        return ImageInputs({"pixel_values": values}, (self.image_tokens,) * len(images))

    def pixels(self, images: Sequence[Image.Image], flip: bool = False) -> ImageInputs:
        """As every family's."""
        found = self._inputs([upright(image) for image in images])
        if not flip:
            return found
        # Resizing is symmetric: flipping its result is flipping the picture, at half the decoding.
        return replace(found, mirrored=replace(found, tensors={"pixel_values": found.tensors["pixel_values"].flip(-1)}))


def square(image: Image.Image) -> Image.Image:
    """The upright image as RGB, padded with black to a square around its centre.

    Black, because object crops that reach over the picture's edge are padded with zeros too.
    """
    rgb = upright(image)
    if rgb.width == rgb.height:
        return rgb
    side = max(rgb.size)
    canvas = Image.new("RGB", (side, side))
    canvas.paste(rgb, ((side - rgb.width) // 2, (side - rgb.height) // 2))
    return canvas


register(LlavaPoseConfig, LlavaPoseForConditionalGeneration)
