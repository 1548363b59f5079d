"""The training script with evaluations whose scores are given, whatever the model: SCORES="1:10 2:30 3:20"."""

import os

from llava_pose.errors import run_cli
from train import finetune
from train.best import Best

SCORES = {int(step): float(score) for step, score in (pair.split(":") for pair in os.environ["SCORES"].split())}


def main() -> None:
    """Train, with these scores."""
    add = Best.add

    def scripted(best: Best, step: int, _: object) -> None:
        add(best, step, {"val_acc_pi_6": SCORES[step], "val_acc_pi_18": 0.0})

    Best.add = scripted  # type: ignore[method-assign,assignment]
    finetune.main()


if __name__ == "__main__":
    run_cli(main)
