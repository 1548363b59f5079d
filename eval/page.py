"""The parts of the evaluation page: HTML in, HTML out, every text escaped, every picture embedded."""

from __future__ import annotations

import base64
import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Any

from llava_pose.overlay import draw_axes
from llava_pose.scene import PosedImage
from llava_pose.words import pose_text

THUMBNAIL = 224
BIN_DEGREES = 5

CSS = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --line: #d9dee6; --card: #f5f7fa; --page: #fff;
  --good: #2f7fd6; --bad: #e07a3f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaf0; --soft: #9aa6b5; --line: #313a46; --card: #1d232b; --page: #14181d; --good: #5aa2ee;
    --bad: #f09a63; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1100px; padding: 2rem 1.2rem 4rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 1.2rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
.note, figcaption, th { color: var(--soft); } .note { margin: .4rem 0; font-size: .88rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: .7rem; }
.tiles div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .7rem .9rem; }
.tiles b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 1rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .6rem; }
figure div { display: grid; grid-template-columns: 1fr 1fr; gap: .4rem; } figure img { width: 100%; display: block;
  border-radius: 6px; } figcaption { font-size: .83rem; margin-top: .45rem; } .wrong { color: var(--bad); }
svg { width: 100%; height: auto; } svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
svg .right { fill: var(--good); } svg .missed { fill: var(--bad); } svg line { stroke: var(--soft); }
"""


def document(title: str, *parts: str) -> str:
    """The whole page; parts are HTML."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{CSS}</style></head>\n<body>' + (
        f"<h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def section(title: str, body: str, note: str = "") -> str:
    """A heading, an optional line of explanation, and a body of HTML."""
    explanation = f'<p class="note">{escape(note)}</p>' if note else ""
    return f"<h2>{escape(title)}</h2>{explanation}{body}"


def tiles(values: Sequence[tuple[str, str]]) -> str:
    """Large figures with their names."""
    return '<div class="tiles">' + "".join(f"<div>{escape(k)}<b>{escape(v)}</b></div>" for k, v in values) + "</div>"


def table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A table whose first column holds the rows' names."""
    top = "".join(f"<th>{escape(head)}</th>" for head in ["", *heads])
    body = "".join(
        f"<tr><td>{escape(name)}</td>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        for name, cells in rows
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def histogram(lines: Sequence[dict[str, Any]]) -> str:
    """Pose errors over 0° to 180° as an SVG, objects of a wrongly named class on top in another colour."""
    counts = {True: Counter[int](), False: Counter[int]()}
    last = 180 // BIN_DEGREES - 1
    for line in lines:
        error = line["pose_error"]
        degrees = math.degrees(error) if error is not None and math.isfinite(error) else 180.0
        counts[bool(line["correct"])][min(int(degrees / BIN_DEGREES), last)] += 1
    tallest = max((counts[True][index] + counts[False][index] for index in range(last + 1)), default=0) or 1
    step, height = 20, 200
    bars = []
    for index in range(last + 1):
        top = float(height)
        for correct, kind in ((True, "right"), (False, "missed")):
            size = counts[correct][index] / tallest * height
            top -= size
            if size:
                bars.append(f'<rect class="{kind}" x="{index * step + 1}" y="{top:.1f}" width="{step - 2}" ')
                bars.append(f'height="{size:.1f}"><title>{counts[correct][index]}</title></rect>')
    width = step * (last + 1)
    marks = [
        f'<text x="{degrees / BIN_DEGREES * step:g}" y="{height + 16}" text-anchor="middle">{degrees}°</text>'
        for degrees in range(0, 181, 30)
    ]
    borders = [
        f'<line x1="{degrees / BIN_DEGREES * step:g}" x2="{degrees / BIN_DEGREES * step:g}" y1="-16" y2="{height}" '
        f'stroke-dasharray="4 4"/><text x="{degrees / BIN_DEGREES * step + 4:g}" y="-8">{name}</text>'
        for degrees, name in ((10, "π/18"), (30, "π/6"))
    ]
    legend = (
        f'<rect class="right" x="{width - 210}" y="-18" width="11" height="11"/><text x="{width - 194}" y="-8">class '
        f'right</text><rect class="missed" x="{width - 110}" y="-18" width="11" height="11"/>'
        f'<text x="{width - 94}" y="-8">class wrong</text>'
    )
    return (
        f'<svg viewBox="-14 -22 {width + 28} {height + 46}" role="img" aria-label="histogram of pose errors">'
        f"{''.join(bars)}{''.join(marks)}{''.join(borders)}{legend}</svg>"
    )


def confusions(lines: Sequence[dict[str, Any]], most: int = 12) -> str:
    """The most frequent pairs of a true and a wrong predicted category."""
    pairs = Counter((line["category"], line["predicted_category"]) for line in lines if not line["correct"])
    if not pairs:
        return '<p class="note">None: every class is right.</p>'
    rows = [(true, [predicted, str(count)]) for (true, predicted), count in pairs.most_common(most)]
    return table(["taken for", "objects"], rows)


def gallery(samples: Sequence[tuple[dict[str, Any], PosedImage | None]]) -> str:
    """Predictions beside the truth, each as a picture with the object's axes drawn on it."""
    return '<div class="gallery">' + "".join(_figure(line, record) for line, record in samples) + "</div>"


def _figure(line: dict[str, Any], record: PosedImage | None) -> str:
    predicted = (line["azimuth"], line["elevation"], line["theta"])
    truth = tuple(line["target"][name] for name in ("azimuth", "elevation", "theta"))
    pictures = ""
    if record is not None:
        pictures = _picture(record, line, predicted, "predicted") + _picture(record, line, truth, "true")
    error = line["pose_error"]
    told = f"{math.degrees(error):.1f}°" if error is not None and math.isfinite(error) else "no pose"
    mark = "" if line["correct"] else ' class="wrong"'
    words = (
        f"<b{mark}>{escape(line['predicted_category'])}</b> for {escape(line['category'])} "
        f"({100 * line['class_probability']:.0f}%), error {told}<br>predicted: {_numbers(predicted)}"
        f"<br>true: {_numbers(truth)}<br>{escape(line['image_id'])}, object {escape(str(line['object_id']))}"
    )
    return f"<figure><div>{pictures}</div><figcaption>{words}</figcaption></figure>"


def _finite(pose: Sequence[Any]) -> bool:
    return all(angle is not None and math.isfinite(angle) for angle in pose)


def _numbers(pose: Sequence[Any]) -> str:
    return escape(pose_text(pose)) if _finite(pose) else "none"


def _picture(record: PosedImage, line: dict[str, Any], pose: Sequence[Any], title: str) -> str:
    """The record's image with the axes of one pose, small, as an img element."""
    assert record.image is not None
    item = next(item for item in record.objects if item.object_id == line["object_id"])
    scale = THUMBNAIL / max(record.image.size)
    image = record.image.resize([max(1, round(side * scale)) for side in record.image.size], reducing_gap=3.0)
    if _finite(pose):
        x1, y1, x2, y2 = item.bbox
        center = ((x1 + x2) / 2 * scale, (y1 + y2) / 2 * scale)
        image = draw_axes(image, pose, center, max(12.0, 0.45 * max(x2 - x1, y2 - y1) * scale))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    source = base64.b64encode(stream.getvalue()).decode("ascii")
    label = escape(f"{title} axes of {line['category']}")
    return f'<img alt="{label}" title="{label}" src="data:image/jpeg;base64,{source}">'


def settings(values: dict[str, Any]) -> str:
    """The settings of the run, by name."""
    rows = []
    for name, value in values.items():
        told = ", ".join(map(str, value)) if isinstance(value, list) else value
        rows.append((name, told if isinstance(told, str) else json.dumps(told, ensure_ascii=False)))
    body = "".join(
        f'<tr><td>{escape(name)}</td><td style="text-align:left;white-space:normal">{escape(told)}</td></tr>'
        for name, told in rows
    )
    return f"<table><tbody>{body}</tbody></table>"
