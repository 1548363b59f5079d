"""The card of a data folder: what its rows are, in Markdown under a header that the hub and datasets read."""

from __future__ import annotations

from collections.abc import Sequence

from data_prep.rows import Cut

CARD = """\
---
configs:
- config_name: default
  data_files:
  - split: train
    path: train-*.parquet
  - split: val
    path: val-*.parquet
crop: {crop}
---
# Posed images

{rows}

{kind}

Columns: `image`, `image_id`, `width`, `height`, `objects`, `caption` (every `<pose>` mark follows the
mention of an object), `caption_objects` (the `object_id` of each mark). Angles are radians; boxes, the
principal point (`px`, `py`) and the focal length (`viewport`) are pixels of the image in the row.
"""
KINDS = {
    "object": "A row is one object: the image scaled by distance / 4, 512 x 512 around the object's origin, "
    "brought to {size} x {size} (the published crop; it uses the true distance).",
    "box": "A row is one object: the square of 1.2 times the box's longer side, brought to {size} x {size}.",
    "scene": "A row is a whole image with all its objects.",
}


def card_text(lines: Sequence[str], cut: Cut) -> str:
    """The README.md of a data folder. ``lines``: what the conversion printed."""
    rows = "\n".join(f"- {line}" for line in lines)
    return CARD.format(crop=cut.kind, rows=rows, kind=KINDS[cut.kind].format(size=cut.size))
