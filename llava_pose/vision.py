"""MobileNetV2's feature pyramid as a vision tower: image in, one token for each 16 × 16 or 32 × 32 pixels out.

A token concatenates what MobileNetV2 (Sandler et al., CVPR 2018, https://arxiv.org/abs/1801.04381) says of its
patch at three scales: stride 8 (32 channels, averaged over 2 × 2 cells), stride 16 (96) and stride 32 (160). With
patches of 32 pixels it holds all four cells of the two finer maps, so that a language model reads a picture of twice
the side in as many tokens. Layers and their order are torchvision's ``mobilenet_v2`` up to ``features.16``; its batch
normalisations are folded into the convolutions. On photos the channels have a mean near 0 and a deviation near 0.7,
so tokens need no further normalisation.

Importing this module registers the tower with ``AutoConfig`` and ``AutoModel`` as ``pose_pyramid``, which is
what lets ``LlavaConfig(vision_config=PyramidVisionConfig())`` build, save and load it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .folders import EMBEDDED_MODEL, EMBEDDED_TOWER

# Expansion, output channels, number of blocks, stride of the first: table 2 of the paper, without what lies
# behind the last map that is read.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2))
STEM_CHANNELS = 32
FINE_CHANNELS, MIDDLE_CHANNELS, COARSE_CHANNELS = 32, 96, 160
FINE_BLOCK, MIDDLE_BLOCK, COARSE_BLOCK = 5, 12, 15  # the blocks whose output is read, strides 8, 16 and 32

# A CPU runs the tower twice as fast when the activations of a chunk stay in its cache.
CPU_CHUNK = 16


class PyramidVisionConfig(PreTrainedConfig):
    """Sizes of the tower.

    ``image_size`` is the side in pixels images are resized to (the tower itself takes any multiple of 32);
    ``patch_size`` the side in pixels of a token's patch, 16 or 32. ``hidden_size``, the channels of a token, follows:
    288 or 672. ``image_mean`` and ``image_std`` are what pixels in [0, 1] are normalised with.

    Raises ValueError on a size that the tower cannot have.
    """

    model_type = "pose_pyramid"

    image_size: int = 128
    patch_size: int = 16
    num_channels: int = 3
    hidden_size: int | None = None
    image_mean: tuple[float, ...] | list[float] = (0.485, 0.456, 0.406)
    image_std: tuple[float, ...] | list[float] = (0.229, 0.224, 0.225)

    def __post_init__(self, **kwargs: Any) -> None:
        if self.patch_size not in (16, 32):
            raise ValueError(f"patch_size must be 16 or 32, got {self.patch_size}")
        if self.image_size <= 0 or self.image_size % 32:
            raise ValueError(f"image_size must be a positive multiple of 32, got {self.image_size}")
        cells = (self.patch_size // 16) ** 2
        derived = {"num_channels": 3, "hidden_size": cells * (FINE_CHANNELS + MIDDLE_CHANNELS) + COARSE_CHANNELS}
        for name, value in derived.items():
            if getattr(self, name) not in (None, value):
                raise ValueError(f"{name} must be {value} with patch_size {self.patch_size}, got {getattr(self, name)}")
        self.hidden_size = derived["hidden_size"]
        super().__post_init__(**kwargs)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project: (B, in, H, W) to (B, out, H / stride, W / stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expand = nn.Conv2d(in_channels, hidden, 1) if expansion != 1 else None
        self.depthwise = nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden)
        self.project = nn.Conv2d(hidden, out_channels, 1)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, features: Tensor) -> Tensor:
        hidden = features if self.expand is None else F.relu6(self.expand(features), inplace=True)
        hidden = F.relu6(self.depthwise(hidden), inplace=True)
        hidden = self.project(hidden)
        return features + hidden if self.has_shortcut else hidden


class PyramidVisionModel(PreTrainedModel):
    """The tower. In LLaVA: ``vision_feature_layer=-1`` and ``vision_feature_select_strategy="full"``."""

    config: PyramidVisionConfig
    config_class = PyramidVisionConfig
    base_model_prefix = "vision_tower"
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    _no_split_modules = ["InvertedResidual"]

    def __init__(self, config: PyramidVisionConfig) -> None:
        super().__init__(config)
        self.patch_size = config.patch_size
        self.stem = nn.Conv2d(3, STEM_CHANNELS, 3, stride=2, padding=1)
        blocks, channels = [], STEM_CHANNELS
        for expansion, out_channels, repeats, stride in STAGES:
            for index in range(repeats):
                blocks.append(InvertedResidual(channels, out_channels, 1 if index else stride, expansion))
                channels = out_channels
        self.blocks = nn.ModuleList(blocks)
        self.post_init()

    def forward(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Tokens of normalised images.

        ``pixel_values`` is (B, 3, H, W), any dtype, H and W multiples of 32. ``last_hidden_state`` is
        (B, T, C) in the tower's dtype, with T = (H / patch)(W / patch) tokens in reading order and
        C = ``config.hidden_size``; it is also the one entry of ``hidden_states``. Further arguments that
        LLaVA hands to every tower are ignored.

        Raises ValueError when the shape is another.
        """
        if pixel_values.ndim != 4 or pixel_values.shape[1] != 3:
            raise ValueError(f"pixel_values must have shape (B, 3, H, W), got {tuple(pixel_values.shape)}")
        height, width = pixel_values.shape[2:]
        if height % 32 or width % 32 or 0 in (height, width):
            raise ValueError(f"pixel_values must have sides that are multiples of 32, got {height} × {width}")
        pixel_values = pixel_values.to(self.dtype, memory_format=torch.channels_last)
        chunk = CPU_CHUNK if pixel_values.device.type == "cpu" else max(len(pixel_values), 1)
        tokens = torch.cat([self._tokens(part) for part in pixel_values.split(chunk)])
        return BaseModelOutputWithPooling(last_hidden_state=tokens, hidden_states=(tokens,))

    def _tokens(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, T, C)."""
        features = F.relu6(self.stem(pixel_values), inplace=True)
        maps = {}
        for index, block in enumerate(self.blocks):
            features = block(features)
            if index in (FINE_BLOCK, MIDDLE_BLOCK, COARSE_BLOCK):
                maps[index] = features
        finer = torch.cat([F.avg_pool2d(maps[FINE_BLOCK], 2), maps[MIDDLE_BLOCK]], dim=1)
        coarse = maps[COARSE_BLOCK]
        if self.patch_size == 32:
            pyramid = [F.pixel_unshuffle(finer, 2), coarse]
        else:
            pyramid = [finer, F.interpolate(coarse, scale_factor=2.0, mode="nearest")]
        return torch.cat(pyramid, dim=1).flatten(2).transpose(1, 2).contiguous()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            init.kaiming_normal_(module.weight, mode="fan_out")
            init.zeros_(module.bias)


def load_embedded_tower(
    dtype: torch.dtype = torch.float32, image_size: int = 128, patch_size: int = 16, posed: bool = False
) -> PyramidVisionModel:
    """The tower that comes with the package, trained on ImageNet, frozen. ``assets/NOTICE`` has its licence.

    float32 reads the stored bfloat16 weights exactly; bfloat16 is faster and its tokens differ by about 5 %. The sizes
    are ``PyramidVisionConfig``'s. ``posed``: the embedded model's own, which was finetuned on rendered objects and
    their poses.
    """
    if posed:
        of_model, prefix = load_file(EMBEDDED_MODEL / "model.safetensors"), "model.vision_tower."
        weights = {name.removeprefix(prefix): of_model[name] for name in of_model if name.startswith(prefix)}
    else:
        weights = load_file(EMBEDDED_TOWER / "model.safetensors")
    tower = PyramidVisionModel(PyramidVisionConfig(image_size=image_size, patch_size=patch_size))
    tower.load_state_dict({name: weight.to(dtype) for name, weight in weights.items()}, assign=True)
    return tower.eval().requires_grad_(False)


AutoConfig.register(PyramidVisionConfig.model_type, PyramidVisionConfig)
AutoModel.register(PyramidVisionConfig, PyramidVisionModel)
