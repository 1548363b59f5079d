"""A small file of plain conversations in LLaVA's form, with and without pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def turns(*texts: str) -> list[dict[str, str]]:
    """What human and gpt say in turn."""
    return [{"from": ("human", "gpt")[index % 2], "value": text} for index, text in enumerate(texts)]


def write_plain(folder: Path) -> Path:
    """Twelve conversations: five about one of three pictures, one about two, the others about none; the file."""
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 255, (20 + 8 * number, 30, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    entries: list[dict[str, Any]] = [
        {"image": f"{number % 3}.png", "conversations": turns("<image>\nOn the left?", "A car " * (1 + number))}
        for number in range(5)
    ]
    entries.append({"image": ["2.png", "0.png"], "conversations": turns("<image><image>Same?", "No.")})
    entries += [{"conversations": turns("Tell me more.", "More " * (1 + 5 * number))} for number in range(6)]
    path = folder / "talk.json"
    path.write_text(json.dumps(entries))
    return path


def kinds(rows: Any, count: int) -> dict[str, list[int]]:
    """The numbers of the first samples by kind: posed, about pictures, text alone."""
    found: dict[str, list[int]] = {"posed": [], "pictures": [], "text": []}
    for number in range(count):
        sample = rows[number]
        found["posed" if len(sample["poses"]) else "pictures" if "images" in sample else "text"].append(number)
    return found
