"""The card of a data folder: what its rows are and what was left out, in Markdown under a header that the hub and
datasets read, with a picture of how the angles spread."""

from __future__ import annotations

import io
import json
from pathlib import Path

from data_prep.conversion.rows import Cut
from data_prep.conversion.source import Source
from data_prep.conversion.stamp import stamp
from data_prep.conversion.summary import ANGLES, STEP, Tally
from llava_pose import __version__, taxonomy
from llava_pose.files import write_atomic

CARD = """\
---
license: {licence}
pretty_name: {title}
task_categories:
- image-text-to-text
- image-classification
tags:
- 3d
- pose-estimation
- orientation
size_categories:
- {magnitude}
configs:
- config_name: default
  description: {stamp}
  data_files:
{files}
crop: {crop}
---
# {heading}

{kind}

{how}

| | {splits} |
|---|{rule}
{counts}
{skipped}
![How many objects have which azimuth, elevation and theta](angles.png)

## Columns and conventions

`image`, `image_id`, `width`, `height`, `objects`, `caption` (every `<pose>` mark follows the mention of an object),
`caption_objects` (the `object_id` of each mark). Of an object: `object_id`, `category`, `bbox` (x1, y1, x2, y2),
`azimuth`, `elevation`, `theta`, `distance`, `px`, `py`, `viewport`, `cad_index`, `status`, `dense`.

- Angles are radians. Azimuth 0 sees the object's front, π/2 its own left side; a positive elevation looks down on it;
  theta turns the picture in its plane. With z up and the object facing −y, `R = Rz(theta) · Rx(elevation − π/2) ·
  Rz(−azimuth)` turns the object's frame into the camera's, which looks along −z with x right and y up.
- Boxes, the object's origin (`px`, `py`) and the focal length (`viewport`) are pixels of the image in the row, measured
  from its upper left corner; `distance` is in units of the object's own size.
{own}- Images are as they were stored: an EXIF rotation is not applied, because annotations refer to stored pixels.

## Licence

The source's terms hold for this data: {licence} for the annotations as released, and the terms of whoever made the
images for the images.

## Use

```python
from datasets import load_dataset

data = load_dataset("FOLDER")  # or the name under which it is published
```

Made by LLaVA-pose {version}.
"""
OWN_CATEGORIES = """\
- `taxonomy.json` defines the categories, spoken forms and meta-classes that LLaVA-pose does not bring along itself.
"""
KINDS = {
    "object": "A row is one object: the image scaled by distance / 4{by_viewport}, 512 × 512 around the object's "
    "origin, brought to {size} × {size}, zeros beyond the image (the published crop; it uses the true distance).",
    "box": "A row is one object: the square of 1.2 times the box's longer side around it, brought to {size} × {size}, "
    "zeros beyond the image.",
    "scene": "A row is a whole image with all its objects.",
}
TITLES = {"object": "object crops", "box": "box crops", "scene": "whole images"}
MAGNITUDES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
SKIPPED_FILE = "skipped.jsonl"


def write_card(folder: Path, source: Source, cut: Cut, tallies: dict[str, Tally], checksums: dict[str, int]) -> None:
    """Write README.md and angles.png into a data folder. ``tallies``: by split; ``checksums``: by shard."""
    write_atomic(folder / "angles.png", angles_picture(tallies))
    listed = (folder / SKIPPED_FILE).exists()
    write_atomic(folder / "README.md", card_text(source, cut, tallies, stamp(checksums), listed).encode())


def card_text(source: Source, cut: Cut, tallies: dict[str, Tally], stamped: str, listed: bool) -> str:
    """The card. ``stamped``: see ``stamp``; ``listed``: whether a file lists what was left out because of a mistake."""
    total = Tally()
    for tally in tallies.values():
        total.add(tally)
    kind = KINDS[cut.kind].format(size=cut.size, by_viewport=" · 2000 / viewport" if cut.by_viewport else "")
    counts = {
        "rows": [tally.rows for tally in tallies.values()],
        "images": [tally.shown for tally in tallies.values()],
        "objects": [tally.objects.total() for tally in tallies.values()],
        "categories": [len(tally.objects) for tally in tallies.values()],
    }
    for meta, _ in total.by_meta_class().most_common():
        counts[f"objects: {meta}"] = [tally.by_meta_class()[meta] for tally in tallies.values()]
    for reason in sorted(total.skipped):
        counts[f"left out: {reason}"] = [tally.skipped[reason] for tally in tallies.values()]
    return CARD.format(
        licence=source.licence,
        title=json.dumps(f"{source.name}, {TITLES[cut.kind]}", ensure_ascii=False),
        heading=f"{source.name}: {TITLES[cut.kind]} with 3D poses",
        magnitude=next((name for most, name in MAGNITUDES.items() if total.rows < most), "1M<n<10M"),
        files="\n".join(f"  - split: {split}\n    path: {split}-*.parquet" for split in tallies),
        stamp=stamped,
        crop=cut.kind,
        kind=kind,
        how=source.how,
        splits=" | ".join(tallies),
        rule="---|" * len(tallies),
        counts="\n".join(f"| {name} | {' | '.join(f'{n:,}' for n in values)} |" for name, values in counts.items()),
        own=OWN_CATEGORIES if taxonomy.file_text() else "",
        skipped=f"\nEvery mistake in the data is named in `{SKIPPED_FILE}`.\n" if listed else "",
        version=__version__,
    )


def angles_picture(tallies: dict[str, Tally]) -> bytes:
    """A PNG with a histogram of each angle, a line a split, in degrees."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # half a second, at the end of a conversion
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3), layout="constrained")
    for axes, (angle, (low, high)) in zip(figure.subplots(1, len(ANGLES)), ANGLES.items(), strict=True):
        for split, tally in tallies.items():
            axes.stairs(tally.angles[angle], range(low, high + 1, STEP), label=split, linewidth=1.8)
        axes.set_title(angle)
        axes.set_xlabel("degrees")
        axes.set_xticks(range(low, high + 1, 90 if high - low == 360 else 45))
        axes.set_xlim(low, high)
        axes.set_ylim(bottom=0)
    figure.axes[0].set_ylabel(f"objects in {STEP} degrees")
    figure.axes[-1].legend(frameon=False)
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream, metadata={"Software": None})
    return stream.getvalue()
