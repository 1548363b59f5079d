"""Numbers about prediction lines that the page shows besides the tables: pure functions, angles in radians."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from llava_pose.evaluation import columns
from llava_pose.geometry import angle_difference, canonical_pose, pose_error
from llava_pose.reading import HIT
from llava_pose.words import octant

Line = Mapping[str, Any]

HALF_TURN_WITHIN = math.radians(20)
"""How close to half a turn an azimuth must be off to count as front taken for back."""

ANGLES = ("azimuth", "elevation", "theta")


class Share(NamedTuple):
    """So many of so many."""

    part: int
    whole: int

    @property
    def percent(self) -> float:
        """The share in percent, 0 of none."""
        return 100.0 * self.part / max(self.whole, 1)


def pose_errors(lines: Sequence[Line]) -> np.ndarray:
    """The pose errors (N,) of lines, π where there is no pose."""
    return np.nan_to_num(columns(lines, "pose_error")[0], nan=math.pi)


def joint_errors(lines: Sequence[Line]) -> np.ndarray:
    """The errors (N,) as the joint metric counts them, π more where the class is wrong."""
    return pose_errors(lines) + np.where(columns(lines, "pose_error")[1], 0.0, math.pi)


def within(errors: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The share in percent of errors (N,) below each of the thresholds (T,): the accuracy at any threshold."""
    return 100.0 * np.searchsorted(np.sort(errors), thresholds, side="left") / max(len(errors), 1)


def readable(lines: Sequence[Line]) -> list[Line]:
    """The lines with a pose."""
    return [line for line in lines if all(line[name] is not None and math.isfinite(line[name]) for name in ANGLES)]


def poses(lines: Sequence[Line]) -> tuple[np.ndarray, np.ndarray]:
    """The true and the predicted poses (N, 3) of readable lines, in canonical form."""
    true = [[line["target"][name] for name in ANGLES] for line in lines]
    said = [[line[name] for name in ANGLES] for line in lines]
    return canonical_pose(np.reshape(true, (-1, 3))), canonical_pose(np.reshape(said, (-1, 3)))


def side_confusion(lines: Sequence[Line]) -> np.ndarray:
    """How often each of the eight sides (rows, as ``words.SIDES``) is taken for each: (8, 8) counts by azimuth."""
    counts = np.zeros((8, 8), dtype=int)
    true, said = poses(lines)
    for one, other in zip(true[:, 0], said[:, 0], strict=True):
        counts[octant(one), octant(other)] += 1
    return counts


def azimuth_errors(lines: Sequence[Line]) -> np.ndarray:
    """Predicted less true azimuth (N,) of readable lines, in [−π, π)."""
    true, said = poses(lines)
    return angle_difference(said[:, 0], true[:, 0])


def half_turns(lines: Sequence[Line]) -> tuple[Share, Share]:
    """How many of the readable lines have an azimuth within 20° of half a turn off, and how many of those that miss by
    π/6 or more."""
    found = readable(lines)
    turned = np.abs(np.abs(azimuth_errors(found)) - math.pi) <= HALF_TURN_WITHIN
    missed = pose_errors(found) >= HIT
    return Share(int(turned.sum()), len(found)), Share(int((turned & missed).sum()), int(missed.sum()))


def alternatives(lines: Sequence[Line]) -> tuple[Share, Share]:
    """How many readable lines tell of an alternative, and of those that miss by π/6 or more, how many have an
    alternative that is right."""
    found = readable(lines)
    missed = [line for line, error in zip(found, pose_errors(found), strict=True) if error >= HIT]
    told = sum(line.get("alternative") is not None for line in found)
    return Share(told, len(found)), Share(sum(alternative_hits(line) for line in missed), len(missed))


def alternative_hits(line: Line) -> bool:
    """Whether a line's alternative errs by less than π/6."""
    other = line.get("alternative")
    if other is None:
        return False
    return float(pose_error([other[name] for name in ANGLES], [line["target"][name] for name in ANGLES])) < HIT


def confidences(lines: Sequence[Line], joint: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The confidence (M,) of the lines that tell one, and whether each errs by less than π/6 (M,); ``joint``: the
    confidence that the class is right as well, and whether it is."""
    name = "joint_confidence" if joint else "confidence"
    told = [line for line in lines if line.get(name) is not None]
    errors = joint_errors(told) if joint else pose_errors(told)
    return np.array([line[name] for line in told], dtype=np.float64), errors < HIT


def expected_errors(lines: Sequence[Line]) -> tuple[np.ndarray, np.ndarray]:
    """The error to expect (M,) of the lines that tell one, and the real one (M,)."""
    told = [line for line in lines if line.get("expected_error") is not None]
    return np.array([line["expected_error"] for line in told], dtype=np.float64), pose_errors(told)


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share (0 to 1) of ``count`` independent objects (Wilson's score interval)."""
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)
