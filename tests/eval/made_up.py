"""Made-up prediction lines in the form that the benchmark writes, for everything that is shown of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from eval.results import make_metrics
from llava_pose import taxonomy
from llava_pose.evaluation import NO_ANSWER
from llava_pose.geometry import pose_error

CATEGORIES = ("car", "chair", "diningtable", "teapot", "guitar", "aeroplane")
ANGLES = ("azimuth", "elevation", "theta")


def made_up_lines(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Lines of which most are near the truth, every sixth is half a turn off and knows it, every ninth has a wrong
    class, and two have failed."""
    rng = np.random.default_rng(seed)
    lines = []
    for row in range(count):
        category = CATEGORIES[row % len(CATEGORIES)]
        true = np.array([rng.uniform(0, 2 * np.pi), rng.uniform(-0.2, 0.8), rng.normal(0, 0.1)])
        turned = row % 6 == 5
        said = true + rng.normal(0, 0.08, 3) + np.array([np.pi if turned else 0, 0, 0])
        other = true + np.array([0.05 if turned else np.pi, 0, 0])
        predicted = CATEGORIES[(row + 1) % len(CATEGORIES)] if row % 9 == 8 else category
        error = float(pose_error(said, true))
        confidence = float(np.clip(rng.normal(0.5 if turned else 0.9, 0.08), 0, 1))
        answer = {
            "predicted_category": predicted,
            "class_probability": float(rng.uniform(0.5, 1)),
            "joint_confidence": 0.9 * confidence,
            "unexplored": 0.0,
            **dict(zip(ANGLES, said.tolist(), strict=True)),
            "confidence": confidence,
            "expected_error": float(rng.uniform(0.8, 1.2) * (1.5 if turned else 0.12)),
            "alternative": {**dict(zip(ANGLES, other.tolist(), strict=True)), "probability": 0.3, "turn": 3.0}
            if row % 2
            else None,
            "pose_error": error,
            "argmax_pose_error": min(error + 0.02, np.pi),
            "given_class_pose_error": error,
            "correct": predicted == category,
        }
        failed = row in (3, 7)
        lines.append(
            {
                "image_id": f"{category}/n{row:04d}",
                "object_id": 0,
                "category": category,
                "meta_class": taxonomy.meta_class(category),
                **(NO_ANSWER if failed else answer),
                "target": dict(zip(ANGLES, true.tolist(), strict=True)),
                "row": row,
                "crop": "object",
                **({"error": f"{category}/n{row:04d}: image: cannot be decoded: truncated"} if failed else {}),
            }
        )
    return lines


def made_up_metrics(lines: list[dict[str, Any]], protocol: str = "joint") -> dict[str, Any]:
    """The metrics that the benchmark makes of such lines."""
    train = [{"category": c, **dict.fromkeys(ANGLES, 0.1)} for n, c in enumerate(CATEGORIES) for _ in range(4 * n + 1)]
    settings = {"model": "runs/model", "data": "runs/data", "split": "val", "crop": "object", "protocol": protocol}
    settings |= {"reading": "hits", "categories": list(CATEGORIES)}
    return make_metrics(lines, settings, train, protocol)
