"""Teach a base's new projector to show poses, before a language model of some size looks at them.

    python train/pretrain_projector.py --config train/recipes/smollm2-135m.yaml --out runs/smollm2/projector.safetensors

In finetuning, what a new projector learns comes back through every layer of the language model, a whole pass for each
sample. Here the mean of an image's tokens behind the projector goes straight to a pose head and a classifier, which are
then thrown away: no language model is run. What a mean of the tokens tells, attention that looks at all of them alike
can read. LLaVA trains its projector first too, on captions.

Data, base, seed, flip and the cached features are the recipe's; its model.projector is what this writes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import nn
from tqdm import tqdm

from llava_pose.arguments import CommandParser, positive_number, whole_number
from llava_pose.errors import UserError, run_cli
from llava_pose.files import write_atomic
from llava_pose.losses import pose_losses
from llava_pose.modeling import PoseHead
from train.config import TrainConfig, load_config
from train.data import cache_features
from train.model import build_model
from train.schedule import learning_rate_factor
from train.sets import PosedRows, load_data

WARMUP = 50
"""Steps in which the learning rate rises; from there it falls to 0 along half a cosine."""


class Objects:
    """The objects that are alone in their row, with cached features of the row's picture and its mirror image."""

    def __init__(self, sets: list[Any], seed: int, flip: bool):
        self.sets = [part for part in sets if isinstance(part, PosedRows)]
        self.places = [
            (part, row) for part in self.sets for row in range(len(part)) if len(part.record(row).objects) == 1
        ]
        if not self.places:
            raise UserError("data: no row has one object alone, which a projector could be trained on")
        self.categories = sorted({name for part in self.sets for name in part.categories})
        self.rng, self.flip = np.random.default_rng([seed, 5]), flip

    def batch(self, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Features (B, tokens, channels), poses (B, 3) and categories (B,) of objects drawn at random."""
        features, poses, names = [], [], []
        for place in self.rng.integers(len(self.places), size=size):
            part, row = self.places[place]
            mirrored = bool(self.flip and self.rng.random() < 0.5)
            record = part.record(row)
            [item] = (record.mirrored() if mirrored else record).objects
            features.append(part.cache.get(row, mirrored))
            poses.append(item.pose)
            names.append(self.categories.index(item.category))
        return torch.stack(features), torch.tensor(np.array(poses)), torch.tensor(names)


class Pooled(nn.Module):
    """A projector, and what reads the mean of its tokens: a pose head and a classifier."""

    def __init__(self, projector: nn.Module, width: int, config: Any, categories: int):
        super().__init__()
        self.projector = projector
        self.pose_head = PoseHead(width, config.pose_hidden_size, config.pose_bins)
        self.classes = nn.Linear(width, categories)

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pooled = self.projector(features).mean(1)
        return self.pose_head(pooled), self.classes(pooled)


def main() -> None:
    """Train the projector and write its file."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="YAML", help="a recipe with model.base")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the .safetensors file to write")
    parser.add_argument("--steps", type=whole_number, default=1200, help="of --batch-size objects each (1200)")
    parser.add_argument("--batch-size", type=whole_number, default=64, help="objects a step (64)")
    parser.add_argument("--learning-rate", type=positive_number, default=2e-3, help="at its height (0.002)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings laid over the recipe's")
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.overrides)
    if config.model.base is None or not config.cache_features:
        raise UserError(f"{arguments.config}: a projector is trained for model.base, with cache_features")
    sets, _ = load_data(config)
    # Otherwise as a run builds it, or its tower's features would not be those that the run finds.
    plain = config.model.model_copy(update={"lora": None, "projector": None})
    model, processor = build_model(config.model_copy(update={"model": plain}))
    folder = Path(config.cache_dir) if config.cache_dir else Path(config.output_dir) / "features"
    cache_features(sets, model, processor, folder, config.flip, True, config.precision == "bf16")
    torch.manual_seed(config.seed)
    objects = Objects(sets, config.seed, config.flip)
    projector = model.model.multi_modal_projector.float()
    train_projector(projector, model, objects, config, arguments)
    with torch.no_grad():
        match_vocabulary(projector, model, objects.batch(arguments.batch_size)[0])
    state = {name: value.detach().contiguous() for name, value in projector.state_dict().items()}
    write_atomic(arguments.out, save(state, metadata={"format": "pt"}))
    print(f"{arguments.out}: a projector trained on {arguments.steps * arguments.batch_size:,} samples")


def train_projector(projector: nn.Module, model: Any, objects: Objects, config: TrainConfig, arguments: Any) -> None:
    """All steps, on both losses' sum."""
    width = model.config.get_text_config().hidden_size
    pooled = Pooled(projector, width, model.config, len(objects.categories)).train().requires_grad_(True)
    optimizer = torch.optim.AdamW(pooled.parameters(), betas=(0.9, 0.98), weight_decay=0.05, fused=True)
    timing = config.model_copy(update={"steps": arguments.steps, "warmup_steps": WARMUP, "schedule": "cosine"})
    progress = tqdm(range(arguments.steps), desc="projector", unit="step")
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = arguments.learning_rate * learning_rate_factor(step, timing)
        features, poses, names = objects.batch(arguments.batch_size)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
            pose_logits, class_logits = pooled(features if config.precision == "bf16" else features.float())
        summed = pose_losses(pose_logits, poses, config.model.pose_target_deviation, model.config.pose_bins)
        pose_loss = summed[:3].mean() / len(poses)
        loss = pose_loss + F.cross_entropy(class_logits.float(), names)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(pooled.parameters(), config.max_grad_norm)
        optimizer.step()
        progress.set_postfix(pose=f"{pose_loss.detach().item():.3f}")


def match_vocabulary(projector: Any, model: Any, features: torch.Tensor) -> None:
    """Scale the projector so that its tokens are as large as the vocabulary's, which the language model is used to.
    The pose head that it was trained with normalises what it is given: nothing that is said changes."""
    usual = model.get_input_embeddings().weight.float().square().mean().sqrt()
    factor = usual / projector(features.float()).square().mean().sqrt()
    projector.linear_2.weight.mul_(factor)
    projector.linear_2.bias.mul_(factor)


if __name__ == "__main__":
    run_cli(main)
