"""Conversations as people write them: texts, and pictures among them, to turns in transformers' message form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .errors import UserError
from .images import Box
from .processing import assistant_message, user_message, without_marks

ROLES = ("system", "user", "assistant")


class Picture(NamedTuple):
    """A picture of a conversation: anything ``images.open_image`` takes, the box that is meant, and what mistakes in it
    are told of."""

    image: Any
    box: Box | None
    name: str


def read_turns(messages: Sequence[Any], image: Any = None) -> tuple[list[dict[str, Any]], list[Picture]]:
    """Messages in transformers' form, and their pictures in reading order.

    messages: ``{"role": "user" | "assistant" | "system", "content": …}``, the content a text or a list of parts,
    ``{"type": "text", "text": …}`` and, in a user's turn, ``{"type": "image", "image": …, "box": [x1, y1, x2, y2]?}``.
    ``image``, where one is given, belongs to the first user's turn. The pictures of a turn come before its words.

    Raises UserError, naming the message and the part, for what is of another form, and for a conversation that does not
    end with the user's turn or has the system's anywhere but at its beginning.
    """
    turns: list[dict[str, Any]] = []
    pictures: list[Picture] = []
    alone = image is not None
    for index, message in enumerate(messages):
        name = f"messages[{index}]"
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in ROLES:
            raise UserError(f"{name}: each needs a role ({', '.join(ROLES)}) and a content, got {message!r:.200}")
        words, own = _parts(message.get("content"), f"{name}.content")
        if own and role != "user":
            raise UserError(f"{name}.content: the {role}'s turn has a picture; only the user's may")
        if role == "user":
            if alone:
                own, alone = [Picture(image, None, "image"), *own], False
            turns.append(user_message(without_marks(words), len(own)))
            pictures += own
        elif role == "assistant":
            turns.append(assistant_message(without_marks(words, ("<image>",))))
        elif index:
            raise UserError(f"{name}: the system's turn must be the first")
        else:
            turns.append({"role": "system", "content": [{"type": "text", "text": without_marks(words)}]})
    if not turns or turns[-1]["role"] != "user":
        raise UserError("messages: the last must be the user's")
    return turns, pictures


def _parts(content: Any, name: str) -> tuple[str, list[Picture]]:
    if isinstance(content, str):
        return content, []
    if not isinstance(content, (list, tuple)):
        raise UserError(f"{name}: {content!r:.80}: expected a text or a list of parts")
    words: list[str] = []
    pictures: list[Picture] = []
    for index, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else None
        where = f"{name}[{index}]"
        if kind == "text" and isinstance(part.get("text"), str):
            words.append(part["text"])
        elif kind == "image" and part.get("image") is not None:
            pictures.append(Picture(part["image"], _box(part.get("box"), f"{where}.box"), f"{where}.image"))
        else:
            raise UserError(f"{where}: expected a text with its text or an image with its image, got {part!r:.80}")
    return "\n".join(words), pictures


def _box(box: Any, name: str) -> Box | None:
    if box is None:
        return None
    try:
        x1, y1, x2, y2 = map(float, box)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: {box!r:.80}: expected x1, y1, x2, y2") from error
    return x1, y1, x2, y2


def without_oldest(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The messages without the oldest question and its answer, whose pictures go to the next question; where there is
    only one question, without its oldest picture but the last. None where nothing can go. The system's turn stays."""
    asked = [index for index, message in enumerate(messages) if message["role"] == "user"]
    first = messages[asked[0]]
    pictures = _pictures_of(first)
    if len(asked) > 1:
        following = messages[asked[1]]
        kept = following if not pictures else {**following, "content": [*pictures, *_parts_of(following)]}
        return [*messages[: asked[0]], kept, *messages[asked[1] + 1 :]]
    if len(pictures) > 1:
        content = [part for part in _parts_of(first) if part is not pictures[0]]
        return [*messages[: asked[0]], {**first, "content": content}, *messages[asked[0] + 1 :]]
    return None


def _parts_of(message: dict[str, Any]) -> list[Any]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def _pictures_of(message: dict[str, Any]) -> list[Any]:
    return [part for part in _parts_of(message) if part["type"] == "image"]
