"""What a conversion counts: images, rows, objects by category, what was left out and why, and how the angles spread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from data_prep.conversion.source import Problem
from llava_pose.geometry import canonical_pose
from llava_pose.taxonomy import meta_class

ANGLES = {"azimuth": (0, 360), "elevation": (-90, 90), "theta": (-180, 180)}
"""The degrees that the histogram of each angle spans."""
STEP = 10
"""Degrees from one border of a histogram to the next."""


def _empty_histograms() -> dict[str, list[int]]:
    return {name: [0] * ((high - low) // STEP) for name, (low, high) in ANGLES.items()}


@dataclass
class Tally:
    """Counts over some images. ``images``: those looked at; ``shown``: those that gave rows; ``objects``: by category;
    ``skipped``: objects and images left out, by reason; ``angles``: objects by steps of ten degrees."""

    images: int = 0
    shown: int = 0
    rows: int = 0
    objects: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    angles: dict[str, list[int]] = field(default_factory=_empty_histograms)

    def add_image(self, rows: Sequence[dict[str, Any]], skipped: Counter[str], problems: Iterable[Problem]) -> None:
        """Count one image."""
        self.images += 1
        self.shown += bool(rows)
        self.rows += len(rows)
        self.skipped += skipped
        self.skipped.update(problem.reason for problem in problems)
        self.objects.update(item["category"] for row in rows for item in row["objects"])

    def add_poses(self, poses: Sequence[Sequence[float]]) -> None:
        """Count the angles of poses (n, 3) in radians, each rotation under its canonical name."""
        degrees = np.rad2deg(canonical_pose(np.reshape(poses, (-1, 3))))
        for column, (name, (low, high)) in enumerate(ANGLES.items()):
            # Straight above, 90 degrees of elevation, belongs to the last step.
            steps = np.minimum((degrees[:, column] - low) % 360 // STEP, (high - low) // STEP - 1)
            counts = np.bincount(steps.astype(int), minlength=(high - low) // STEP)
            self.angles[name] = [before + int(new) for before, new in zip(self.angles[name], counts, strict=True)]

    def add(self, other: Tally) -> None:
        """Count what another tally counted."""
        self.images += other.images
        self.shown += other.shown
        self.rows += other.rows
        self.objects += other.objects
        self.skipped += other.skipped
        for name, counts in other.angles.items():
            self.angles[name] = [a + b for a, b in zip(self.angles[name], counts, strict=True)]

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Tally:
        """A tally from its variables, through JSON."""
        return cls(**{**values, "objects": Counter(values["objects"]), "skipped": Counter(values["skipped"])})

    def by_meta_class(self) -> Counter[str]:
        """Objects by the meta-class of their category."""
        found: Counter[str] = Counter()
        for category, count in self.objects.items():
            found[meta_class(category)] += count
        return found


def summary_lines(split: str, tally: Tally) -> list[str]:
    """A split's counts as a person reads them."""
    lines = [f"{split}: {tally.rows:,} rows from {tally.images:,} images"]
    if tally.shown < tally.images:
        lines.append(f"{split}: {tally.images - tally.shown:,} images have nothing to show")
    meta = sorted(tally.by_meta_class().items(), key=lambda pair: (-pair[1], pair[0]))
    counts = ", ".join(f"{name} {count:,}" for name, count in meta)
    lines.append(f"{split}: {tally.objects.total():,} objects of {len(tally.objects)} categories: {counts}")
    return lines + [f"{split}: left out: {reason}: {count:,}" for reason, count in sorted(tally.skipped.items())]
