"""Put a new LLaVA-pose together on a language model, as the base of a finetuning with LoRA.

    python train/assemble.py --text SmolLM2-135M-Instruct.Q4_1.gguf --out runs/smollm2/base
    python train/assemble.py --text HuggingFaceTB/SmolLM2-135M-Instruct --out runs/smollm2/base --image-size 256

The base has the language model's weights, tokenizer and wording of turns, and the vision tower of this package. Its
projector and pose head are new and know nothing yet: a recipe with model.base and model.lora trains them
(train/recipes/smollm2-135m.yaml).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers.utils import logging

from llava_pose import assembly, checkpoint
from llava_pose.arguments import CommandParser, whole_number
from llava_pose.errors import UserError, run_cli
from llava_pose.folders import EMBEDDED, POSED


def main() -> None:
    """Assemble the model and write its folder."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True, metavar="MODEL", help="a folder, a hub name or a .gguf file")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write; it must not be there yet")
    parser.add_argument("--image-size", type=whole_number, default=192, help="pixels a side, a multiple of 32 (192)")
    parser.add_argument("--patch-size", type=int, choices=(16, 32), default=32, help="pixels a token's side (32)")
    tower = "as the embedded model has it, finetuned on poses (posed), or as ImageNet taught it (embedded)"
    parser.add_argument("--tower", choices=(POSED, EMBEDDED), default=POSED, help=f"the vision tower: {tower}")
    parser.add_argument("--pose-hidden-size", type=whole_number, default=512, help="width of the pose head (512)")
    parser.add_argument("--seed", type=int, default=0, help="of the projector's and the head's first weights (0)")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="of the file (bfloat16)")
    arguments = parser.parse_args()
    out = Path(arguments.out)
    if out.exists():
        raise UserError(f"{out}: is there already; name a folder that is not")
    logging.set_verbosity_error()
    sizes = {"image_size": arguments.image_size, "patch_size": arguments.patch_size}
    model, processor = assembly.assemble(
        arguments.text, arguments.tower, arguments.seed, sizes, pose_hidden_size=arguments.pose_hidden_size
    )
    # Cast before saving, not while: tied vocabulary matrices stay one.
    checkpoint.save(model.to(getattr(torch, arguments.dtype)), processor, out)
    weights = sum(value.numel() for value in model.parameters())
    print(f"{out}: {weights / 1e6:.1f} M parameters, {processor.image_tokens} tokens an image")


if __name__ == "__main__":
    run_cli(main)
