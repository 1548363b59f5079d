"""What ``LlavaPose.predict`` answers: an object's category and pose, as values, as JSON, in words and as a picture."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from . import taxonomy
from .errors import UserError
from .images import Box, open_image, scaled
from .overlay import PosedAnswer, answer_picture
from .reading import Alternative, PoseReading
from .words import pose_text, pose_words

NOTEBOOK_PIXELS = 800
"""The longest side of a picture shown in a notebook."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A category that an object may be: its probability over all that were asked about, and the pose read at it."""

    category: str
    class_probability: float
    reading: PoseReading

    def to_dict(self) -> dict[str, Any]:
        """The candidate as JSON-ready values, angles in radians."""
        return {"category": self.category, "class_probability": self.class_probability, **self.reading.to_dict()}


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """One object: its category and its pose.

    candidates: the best categories, best first, of which the first is the answer; joint_confidence: the probability
    that its category is right and its pose errs by less than π/6; box: the (x1, y1, x2, y2) that was asked for, None
    for the whole image; index: which of the images it is in; image: that image, as it was handed in.
    """

    candidates: tuple[Candidate, ...]
    joint_confidence: float
    box: Box | None
    index: int
    image: Any

    @property
    def category(self) -> str:
        """The best category."""
        return self.candidates[0].category

    @property
    def class_probability(self) -> float:
        """How probable the category is among all that were asked about."""
        return self.candidates[0].class_probability

    @property
    def reading(self) -> PoseReading:
        """The pose with all there is to say of it, such as its distributions (3, bins)."""
        return self.candidates[0].reading

    @property
    def pose(self) -> np.ndarray:
        """Azimuth, elevation, theta: (3,) float64, radians; not finite where none could be read."""
        return self.reading.pose

    @property
    def azimuth(self) -> float:
        """The azimuth in radians."""
        return float(self.pose[0])

    @property
    def elevation(self) -> float:
        """The elevation in radians."""
        return float(self.pose[1])

    @property
    def theta(self) -> float:
        """The in-plane rotation in radians."""
        return float(self.pose[2])

    @property
    def confidence(self) -> float:
        """The probability that the pose errs by less than π/6, as good as the model's calibration."""
        return self.reading.confidence

    @property
    def expected_error(self) -> float:
        """The geodesic error to expect, in radians."""
        return self.reading.expected_error

    @property
    def alternative(self) -> Alternative | None:
        """The pose it has otherwise, where that is worth telling: an object may look alike from behind."""
        return self.reading.alternative

    @property
    def words(self) -> str:
        """The pose in degrees and words."""
        return pose_words(self.pose)

    def __repr__(self) -> str:
        name = f"{taxonomy.spoken_name(self.category)} {self.class_probability:.0%}"
        return f"<{name}, {self.words}, {self.confidence:.0%} sure>"

    def to_dict(self) -> dict[str, Any]:
        """The prediction as JSON-ready values, angles in radians (None where no pose could be read).

        Without the distributions; with ``candidates`` where more than the best was asked for.
        """
        box = None if self.box is None else list(self.box)
        found = {**self.candidates[0].to_dict(), "joint_confidence": self.joint_confidence, "box": box}
        if len(self.candidates) > 1:
            found["candidates"] = [candidate.to_dict() for candidate in self.candidates]
        return found

    def draw(self, longest: int | None = None) -> Image.Image:
        """The image with the object's front, left and up axes and its box, and its pose below: see ``draw`` below."""
        return draw([self], longest)

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        stream = io.BytesIO()
        self.draw(NOTEBOOK_PIXELS).save(stream, "PNG")
        return stream.getvalue()


def draw(predictions: Sequence[Prediction], longest: int | None = None) -> Image.Image:
    """The picture of all objects that were found in one image, opened anew and shrunk to ``longest`` pixels a side.

    Raises UserError for no prediction, for those of several images, and for an image that is gone by now.
    """
    if not predictions or not all(_same(prediction.image, predictions[0].image) for prediction in predictions):
        raise UserError("draw: the predictions of one image are needed")
    picture = open_image(predictions[0].image)
    scale = 1.0 if longest is None else min(1.0, longest / max(picture.size))
    if scale < 1:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
    return answer_picture(picture, [_answer(prediction, scale) for prediction in predictions])


def _same(image: Any, other: Any) -> bool:
    return image is other or (isinstance(image, (str, os.PathLike)) and image == other)


def _answer(prediction: Prediction, scale: float) -> PosedAnswer:
    box = None if prediction.box is None else scaled(prediction.box, scale)
    return posed_answer(taxonomy.spoken_name(prediction.category), prediction.reading, box)


def posed_answer(name: str, reading: PoseReading, box: Box | None) -> PosedAnswer:
    """What a picture tells of an object by this name: its pose, and the other one that it may have."""
    other = reading.alternative
    note = "" if other is None else f"or {pose_text(other.pose)} ({other.probability:.0%})"
    return PosedAnswer(name, reading.pose, box, note)
