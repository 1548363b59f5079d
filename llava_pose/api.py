"""The front door: ``LlavaPose.from_pretrained(path)``, then ``.predict`` and ``.chat``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from . import checkpoint, taxonomy
from .arrays import is_array
from .engine import Engine
from .errors import UserError
from .evaluation import batched
from .generation import MAX_NEW_TOKENS, Answer, Request, answer_all, stream
from .image_inputs import ImageInputs
from .images import FILE, Box, open_views
from .loading import read_ahead
from .predictions import Candidate, Prediction
from .trie import NameTrie
from .turns import read_turns, without_oldest

BATCH = 32
READERS = 2
"""Threads that prepare the next batches while the model works on one."""

BESIDES = object()
"""Stands for a picture that is only counted."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class _Place(NamedTuple):
    """Where an object is: in which image, and at which box of it."""

    image: int
    box: Box | None


class LlavaPose:
    """A model ready to use, by several threads side by side. ``engine`` gives access to its parts."""

    def __init__(self, engine: Engine):
        self.engine = engine
        # Names take longer to encode than an image to look at, and mostly are the same ones.
        self._name_trie = lru_cache(maxsize=8)(self._make_name_trie)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path = checkpoint.EMBEDDED,
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        **kwargs: Any,
    ) -> LlavaPose:
        """Open a model folder, a hub name, or the embedded model.

        device: where it runs: the first GPU, if there is one, unless said otherwise; dtype: its precision, by default
        bfloat16 on a GPU and float32 elsewhere; ``kwargs`` go to transformers (``device_map``, which places the model
        itself, ``quantization_config`` …).

        Raises UserError when it is no model, one whose pose head was never trained, or no such device or precision.
        """
        target = _device(device)
        if isinstance(dtype, str) and dtype not in DTYPES:
            raise UserError(f"dtype: {dtype!r} is none of {', '.join(DTYPES)}")
        precision = DTYPES[dtype] if isinstance(dtype, str) else dtype
        if precision is None:
            precision = torch.float32 if target.type == "cpu" else torch.bfloat16
        checkpoint.check_has_head(path)
        model, processor = checkpoint.load(path, precision, **kwargs)
        if not kwargs.keys() & {"device_map", "quantization_config"}:
            model.to(target)
        return cls(Engine(model, processor))

    @property
    def categories(self) -> list[str]:
        """The categories this model was trained to name; every category of the taxonomy where that is not known."""
        known = self.engine.model.config.pose_categories
        return list(known) if known else list(taxonomy.categories())

    def predict(
        self,
        images: Any,
        categories: Sequence[str] | None = None,
        boxes: Any = None,
        *,
        top_k: int = 1,
        flip: bool = False,
        temperature: float | None = None,
    ) -> list[Prediction]:
        """Name the object in each image, or at each box, and read its pose.

        images: one image or several: paths, binary files, PIL images, arrays or tensors (see ``arrays.picture_of``; one
        of four dimensions is a batch). categories: the candidate names (``self.categories`` when left out), in any
        spelling the taxonomy knows. boxes: for each image (for the one image, as it is) the box (x1, y1, x2, y2) in
        pixels of the upright picture of the object meant, or several such boxes, or None for the whole image.

        top_k: how many of the best categories to tell, each with its pose; flip: whether poses are read in the mirror
        image too, which reads better and takes twice the time; temperature: of the probabilities over the categories,
        that of the model's calibration when left out.

        Returns a prediction for each box, or whole image, in order; ``index`` says which image it is in.

        Raises UserError for what is no image, a box outside its image, too few or too many boxes, an unknown category,
        one given twice (be it under another name), a list without any, and a ``top_k`` below 1.
        """
        if top_k < 1:
            raise UserError(f"top_k: {top_k}: at least 1 is needed")
        pictures, alone = _several(images)
        places = list(_places(boxes, len(pictures), alone))
        names, trie = self.candidates(categories, temperature)

        def read(batch: list[_Place]) -> tuple[list[_Place], ImageInputs]:
            return batch, self._pixels(pictures, batch, alone, flip)

        predictions = []
        batches = list(batched(places, BATCH))
        for batch, pixels in read_ahead(read, batches, READERS if len(batches) > 1 else 0):
            for place, naming in zip(batch, self.engine.name(pixels, trie, top_k=top_k, flip=flip), strict=True):
                candidates = tuple(
                    Candidate(names[name], float(naming.probabilities[name]), reading)
                    for name, reading in zip(naming.names, naming.readings, strict=True)
                )
                image = pictures[place.image]
                predictions.append(Prediction(candidates, naming.joint_confidence, place.box, place.image, image))
        return predictions

    def candidates(
        self, categories: Sequence[str] | None = None, temperature: float | None = None
    ) -> tuple[list[str], NameTrie]:
        """The names that ``predict`` chooses among, and their trie, which is made once for the same names; for programs
        that ask the engine themselves. Raises UserError as ``predict`` does."""
        names = self.categories if categories is None else _canonical(categories)
        return names, self._name_trie(tuple(names), tuple(map(taxonomy.spoken_name, names)), temperature)

    def views(self, image: Any, boxes: Sequence[Box | None], name: str = "image") -> list[Image.Image]:
        """What the model is shown of an image at each box; see ``images.open_views``."""
        return open_views(image, boxes, self._side, name)

    def _make_name_trie(self, names: tuple[str, ...], spoken: tuple[str, ...], temperature: float | None) -> NameTrie:
        """The trie of these names; ``spoken``, how the taxonomy says them, tells it from an earlier one."""
        return self.engine.name_trie(names, temperature=temperature)

    def _pixels(self, pictures: Sequence[Any], places: Sequence[_Place], alone: bool, flip: bool) -> ImageInputs:
        views = []
        for index, group in groupby(places, key=lambda place: place.image):
            name = "image" if alone else f"images[{index}]"
            views += self.views(pictures[index], [place.box for place in group], name)
        return self.engine.pixels(views, flip)

    @property
    def _side(self) -> int:
        """The longest side in pixels that the model can make use of."""
        return int(self.engine.processor.side)

    def chat(self, image: Any, messages: Sequence[dict[str, Any]], flip: bool = False) -> Answer:
        """Answer the last of ``messages``.

        messages: ``{"role": "user" | "assistant" | "system", "content": text}``, ending with the user's, about one
        image of a kind that ``predict`` takes. A user's content may also be a list of parts, ``{"type": "text", "text":
        text}`` and ``{"type": "image", "image": image, "box": [x1, y1, x2, y2]?}``: any number of images, in any turn;
        ``image`` is then None, or one more that comes before them. flip: whether each pose is read in the mirror image
        as well, at another pass over the conversation a pose.

        The answer's text holds a ``<pose>`` mark for each of its ``readings``. A conversation that goes on from an
        earlier one is run from where they part: its images are not looked at again.
        """
        *_, answer = self.stream(image, messages, flip)
        return answer

    def chat_all(
        self, conversations: Iterable[tuple[Any, Sequence[dict[str, Any]]]], flip: bool = False
    ) -> Iterator[Answer]:
        """``chat`` for many conversations (image, messages): their answers in order, many of them worked on side by
        side. Raises UserError as ``chat`` does, when the conversation's turn comes."""
        options = {"max_new_tokens": MAX_NEW_TOKENS, "growing": False}
        requests = (self.request(image, messages, flip, **options) for image, messages in conversations)
        return answer_all(self.engine, requests)

    def stream(self, image: Any, messages: Sequence[dict[str, Any]], flip: bool = False) -> Iterator[Answer]:
        """As ``chat``, yielding the answer as it grows. Raises UserError for a conversation the model cannot hold."""
        return stream(self.engine, self.request(image, messages, flip, max_new_tokens=MAX_NEW_TOKENS))

    def request(self, image: Any, messages: Sequence[dict[str, Any]], flip: bool = False, **options: Any) -> Request:
        """What ``chat`` asks of the engine, for programs that answer several conversations together (``Answering``);
        ``options`` are a ``Request``'s. Raises UserError for messages and pictures that cannot be read."""
        turns, pictures = read_turns(messages, image)
        views = [view for each in pictures for view in self.views(each.image, [each.box], each.name)]
        return Request(turns, self.engine.pixels(views, flip) if views else None, **options)

    def recent(self, messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The messages without the oldest questions and answers, as many as must go for an answer to have room.

        Pictures stay: those of a question that goes belong to the next one. Where the last question alone has too
        many, the oldest of them go. One picture besides is counted where the messages have none of their own.
        """
        kept: list[dict[str, Any]] | None = list(messages)
        while kept is not None:
            messages = kept
            turns, pictures = read_turns(messages)
            if not pictures:
                turns, _ = read_turns(messages, BESIDES)
            if self.engine.prompt_length(turns) + MAX_NEW_TOKENS <= self.engine.context:
                break
            kept = without_oldest(messages)
        return list(messages)


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch built without that kind of device asserts it
        raise UserError(f"device: {str(device)!r}: {str(error).splitlines()[0]}") from error


def _several(images: Any) -> tuple[list[Any], bool]:
    """The images as a list, and whether it is one that was handed in alone."""
    if isinstance(images, (Image.Image, *FILE)) or (is_array(images) and images.ndim in (2, 3)):
        return [images], True
    if not isinstance(images, Iterable):
        raise UserError(f"images: {type(images).__name__}: expected an image or a list of images")
    return list(images), False


def _places(boxes: Any, images: int, alone: bool) -> Iterator[_Place]:
    if boxes is not None and not isinstance(boxes, Iterable):
        raise UserError(f"boxes: {boxes!r:.80}: expected a box, or a list of them")
    given = [None] * images if boxes is None else [boxes] if alone else list(boxes)
    if len(given) != images:
        raise UserError(f"boxes: {len(given)} for {images} images")
    for index, entry in enumerate(given):
        if entry is None:
            yield _Place(index, None)
            continue
        try:
            rows = np.asarray(entry, dtype=np.float64)
            rows = rows.reshape(-1, 4) if rows.shape in ((0,), (4,)) else rows
            if rows.ndim != 2 or rows.shape[1] != 4:
                raise ValueError(f"shape {rows.shape}")
        except (TypeError, ValueError) as error:
            name = "boxes" if alone else f"boxes[{index}]"
            raise UserError(f"{name}: {entry!r:.80}: expected x1, y1, x2, y2 or a list of such boxes") from error
        for x1, y1, x2, y2 in rows.tolist():
            yield _Place(index, (x1, y1, x2, y2))


def _canonical(categories: Sequence[str]) -> list[str]:
    if isinstance(categories, str):
        raise UserError(f"categories: {categories!r}: expected a list of names")
    spellings: dict[str, str] = {}
    for spelling in categories:
        name = taxonomy.resolve(spelling)
        if name in spellings:
            raise UserError(f"categories: {spelling!r} and {spellings[name]!r} are the same category, {name!r}")
        spellings[name] = spelling
    return list(spellings)
