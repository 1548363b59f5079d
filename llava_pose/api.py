"""The front door: ``LlavaPose.from_pretrained(path)``, then ``.predict`` and ``.chat``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import checkpoint, taxonomy
from .engine import MAX_NEW_TOKENS, Answer, Engine
from .errors import UserError
from .evaluation import batched
from .images import Box, crop_box, open_image
from .processing import assistant_message, user_message, without_marks
from .words import pose_words

BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """One object: its category among the candidates and its pose in radians.

    class_probability: over the candidates; confidence: see ``reading.PoseReading``; box: the (x1, y1, x2, y2) that
    was asked for, None for the whole image; distributions (3, bins): over azimuth, elevation and theta.
    """

    category: str
    class_probability: float
    azimuth: float
    elevation: float
    theta: float
    confidence: float
    box: Box | None = None
    distributions: np.ndarray = field(repr=False, compare=False, default_factory=lambda: np.zeros((3, 0)))

    @property
    def pose(self) -> np.ndarray:
        """Azimuth, elevation, theta: (3,) float64, radians."""
        return np.array([self.azimuth, self.elevation, self.theta])

    @property
    def words(self) -> str:
        """The pose in degrees and words."""
        return pose_words(self.pose)

    def to_dict(self) -> dict[str, Any]:
        """The prediction as JSON-ready values, without the distributions."""
        box = None if self.box is None else list(self.box)
        names = ("category", "class_probability", "azimuth", "elevation", "theta", "confidence")
        return {**{name: getattr(self, name) for name in names}, "box": box}


class LlavaPose:
    """A model ready to use. ``engine`` gives access to its parts."""

    def __init__(self, engine: Engine):
        self.engine = engine

    @classmethod
    def from_pretrained(cls, path: str | Path = checkpoint.EMBEDDED, **kwargs: Any) -> LlavaPose:
        """Open a model folder, a hub name, or the embedded model; ``kwargs`` as for ``checkpoint.load``.

        Raises UserError when it is none.
        """
        return cls(Engine(*checkpoint.load(path, **kwargs)))

    @property
    def categories(self) -> list[str]:
        """The categories this model was trained to name; every category of the taxonomy where that is not known."""
        known = self.engine.model.config.pose_categories
        return list(known) if known else list(taxonomy.categories())

    def predict(
        self,
        images: Sequence[Any],
        categories: Sequence[str] | None = None,
        boxes: Sequence[Box | None] | None = None,
    ) -> list[Prediction]:
        """Name the object in each image and read its pose.

        images: paths or PIL images; categories: the candidate names (``self.categories`` when left out), in any
        spelling the taxonomy knows; boxes: for each image the box (x1, y1, x2, y2) in pixels of the object meant, or
        None for the whole image.

        Raises UserError for a file that is no image, a box outside its image, an unknown category, one given twice
        (be it under another name) and a list without any.
        """
        names = self.categories if categories is None else _canonical(categories)
        places = [None] * len(images) if boxes is None else list(boxes)
        if len(places) != len(images):
            raise UserError(f"boxes: {len(places)} for {len(images)} images")
        trie = self.engine.name_trie(names)
        predictions = []
        for batch in batched(zip(images, places, strict=True), BATCH):
            crops = [crop_box(open_image(image), box) for image, box in batch]
            for naming, (_, box) in zip(self.engine.name(crops, trie), batch, strict=True):
                azimuth, elevation, theta = (float(angle) for angle in naming.reading.pose)
                predictions.append(
                    Prediction(
                        category=names[naming.index],
                        class_probability=float(naming.probabilities[naming.index]),
                        azimuth=azimuth,
                        elevation=elevation,
                        theta=theta,
                        confidence=naming.reading.confidence,
                        box=box,
                        distributions=naming.reading.distributions,
                    )
                )
        return predictions

    def chat(self, image: Any, messages: Sequence[dict[str, Any]]) -> Answer:
        """Answer the last of ``messages`` about an image (a path or a PIL image).

        messages: ``{"role": "user" | "assistant", "content": text}``, ending with the user's. The answer's text holds
        a ``<pose>`` mark for each of its ``readings``.
        """
        *_, answer = self.stream(image, messages)
        return answer

    def stream(self, image: Any, messages: Sequence[dict[str, Any]]) -> Iterator[Answer]:
        """As ``chat``, yielding the answer as it grows. Raises UserError for a conversation the model cannot hold."""
        turns = _with_image(messages)
        length = self.engine.prompt_length(turns)
        if length >= self.engine.context:
            raise UserError(f"messages: {length} tokens, but this model holds {self.engine.context}")
        pixels = self.engine.processor.pixels([open_image(image)])
        return self.engine.stream(turns, pixels, min(MAX_NEW_TOKENS, self.engine.context - length))

    def recent(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The messages without the oldest questions and answers, as many as must go for an answer to have room."""
        kept = list(messages)
        while len(kept) > 2 and self.engine.prompt_length(_with_image(kept)) + MAX_NEW_TOKENS > self.engine.context:
            del kept[:2]
        return kept


def _canonical(categories: Sequence[str]) -> list[str]:
    spellings: dict[str, str] = {}
    for spelling in categories:
        name = taxonomy.resolve(spelling)
        if name in spellings:
            raise UserError(f"categories: {spelling!r} and {spellings[name]!r} are the same category, {name!r}")
        spellings[name] = spelling
    return list(spellings)


def _with_image(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages in transformers' form, with the image in the first user's turn.

    Raises UserError when the conversation is empty, has another role, or does not end with the user's turn.
    """
    turns: list[dict[str, Any]] = []
    for message in messages:
        role, text = message.get("role"), message.get("content")
        if role not in ("user", "assistant") or not isinstance(text, str):
            raise UserError(f"messages: each needs a role (user or assistant) and a text, got {message!r:.200}")
        if role == "user":
            turns.append(user_message(without_marks(text), images=int(not any(t["role"] == "user" for t in turns))))
        else:
            turns.append(assistant_message(without_marks(text, ("<image>",))))
    if not turns or turns[-1]["role"] != "user":
        raise UserError("messages: the last must be the user's")
    return turns
