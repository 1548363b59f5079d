"""The parts of the evaluation page: HTML in, HTML out, every text escaped, every picture embedded."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from eval.findings import ANGLES, Line, alternative_hits
from llava_pose.overlay import draw_axes
from llava_pose.scene import PosedImage
from llava_pose.taxonomy import spoken_name
from llava_pose.words import pose_text

THUMBNAIL = 224
AROUND = 1.7
"""How much wider than an object's box its picture is, where there is more of it."""
FEW = 30
"""Longer lists of settings open at a click."""

CSS = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #55606f; --line: #d9dee6; --card: #f6f8fa; --page: #fff;
  --good: #2a6fc0; --bad: #bb4a10; --bar: #d3e4f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaf0; --soft: #a3aebc; --line: #313a46; --card: #1b2129; --page: #12161b; --good: #62a8f2;
    --bad: #f09a63; --bar: #21364e; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 1140px; padding: 1.6rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0; } h2 { font-size: 1.2rem; margin: 2.6rem 0 .5rem; }
h3 { font-size: .95rem; margin: 0 0 .5rem; }
a { color: var(--good); }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: .9rem 0 1.2rem; font-size: .9rem; }
nav a { text-decoration: none; padding: .15rem 0; } nav a:hover { text-decoration: underline; }
.note, figcaption, th, .tiles small, td small { color: var(--soft); }
.note { margin: .3rem 0 .7rem; font-size: .9rem; max-width: 75ch; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: .7rem; }
.tiles div, figure { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tiles div { padding: .6rem .85rem; } .tiles small, td small { display: block; font-size: .78rem; }
.tiles b { display: block; font-size: 1.5rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th { font-weight: 600; vertical-align: bottom; } td { vertical-align: top; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 8.5rem; position: sticky; left: 0;
  background: var(--page); }
tr.other td { color: var(--soft); } tr.other td:first-child { padding-left: 1.4rem; }
td.bar { background: linear-gradient(90deg, var(--bar) var(--share), transparent 0); }
td.text { text-align: left; white-space: normal; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 1rem; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .7rem; } figcaption { font-size: .85rem; margin-top: .45rem; }
figure p { margin: 0 0 .5rem; font-size: .92rem; } figure b.wrong { color: var(--bad); }
figure div { display: grid; grid-template-columns: 1fr 1fr; gap: .5rem; }
figure img { width: 100%; aspect-ratio: 1; object-fit: contain; display: block; border-radius: 6px; background: #000; }
figure div span { font-size: .8rem; color: var(--soft); } figure div b { display: block; margin-top: .2rem; }
summary { cursor: pointer; color: var(--good); padding: .3rem 0; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--soft); font: 11px system-ui, sans-serif; }
svg .right { fill: var(--good); } svg .missed { fill: var(--bad); } svg .grid { stroke: var(--line); }
svg .mark { stroke: var(--soft); stroke-dasharray: 4 4; fill: none; } svg text.ink { fill: var(--ink); }
svg .cell { fill: var(--page); } svg .whisker { stroke: var(--soft); stroke-opacity: .6; fill: none; }
svg .curve { stroke-width: 2; } svg .curve.right { stroke: var(--good); fill: none; }
svg .other { fill: var(--soft); } svg .curve.other { stroke: var(--soft); fill: none; }
@media (max-width: 600px) { th, td { padding: .32rem .45rem; } table { font-size: .86rem; } }
"""


def document(title: str, subtitle: str, top: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """The whole page: a title with a line below it, what comes on top, then the sections, each a heading, an
    explanation (or none) and a body; ``top`` and the bodies are HTML."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    links = "".join(f'<a href="#{_anchor(heading)}">{escape(heading)}</a>' for heading, _, _ in sections)
    body = "\n".join(
        f'<section id="{_anchor(heading)}"><h2>{escape(heading)}</h2>{note(explanation)}{content}</section>'
        for heading, explanation, content in sections
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{CSS}</style></head>\n<body>' + (
        f"<h1>{escape(title)}</h1>{note(subtitle)}<nav>{links}</nav>\n{top}\n{body}\n</body></html>\n"
    )


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def note(words: str) -> str:
    """A line of explanation; nothing where there is none."""
    return f'<p class="note">{escape(words)}</p>' if words else ""


def chart(title: str, graph: str, words: str) -> str:
    """A graph with its title and what it shows."""
    return f"<figure><h3>{escape(title)}</h3>{graph}<figcaption>{escape(words)}</figcaption></figure>"


def charts(parts: Sequence[str]) -> str:
    """Graphs side by side, as many as there is room for."""
    return f'<div class="charts">{"".join(parts)}</div>'


def folded(summary: str, body: str) -> str:
    """What opens at a click."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


@dataclass(frozen=True)
class Cell:
    """A table's cell: its text, a smaller line below it, and the share (0 to 100) that a bar behind it shows."""

    text: str
    below: str = ""
    share: float | None = None


def tiles(values: Sequence[tuple[str, Cell]]) -> str:
    """Large figures with their names."""
    body = "".join(f"<div>{escape(k)}<b>{escape(v.text)}</b>{_below(v)}</div>" for k, v in values)
    return f'<div class="tiles">{body}</div>'


@dataclass(frozen=True)
class Row:
    """A table's row: its name, its cells, and whether it is one to compare with, which steps back."""

    name: Cell
    cells: Sequence[Cell]
    other: bool = False


def table(heads: Sequence[str], rows: Sequence[Row]) -> str:
    """A table whose first column holds the rows' names."""
    top = "".join(f"<th>{escape(head)}</th>" for head in ["", *heads])
    body = "".join(
        f"<tr{' class=other' if row.other else ''}>{''.join(map(_cell, [row.name, *row.cells]))}</tr>" for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(cell: Cell) -> str:
    bar = "" if cell.share is None else f' class="bar" style="--share:{cell.share:.1f}%"'
    return f"<td{bar}>{escape(cell.text)}{_below(cell)}</td>"


def _below(cell: Cell) -> str:
    return f"<small>{escape(cell.below)}</small>" if cell.below else ""


def confusions(lines: Sequence[Line], most: int = 12) -> str:
    """The most frequent pairs of a true and a wrong predicted category."""
    pairs = Counter((line["category"], line["predicted_category"]) for line in lines if not line["correct"])
    if not pairs:
        return note("None: every class is right.")
    rows = [
        Row(Cell(spoken_name(true)), [Cell(spoken_name(predicted)), Cell(str(count))])
        for (true, predicted), count in pairs.most_common(most)
    ]
    return table(["taken for", "objects"], rows)


def failures(lines: Sequence[Line], most: int = 100) -> str:
    """The images that could not be had, and why."""
    rows = "".join(
        f'<tr><td>{escape(line["image_id"])}</td><td class="text">{escape(line["error"])}</td></tr>'
        for line in lines[:most]
    )
    more = note(f"And {len(lines) - most} more.") if len(lines) > most else ""
    return f'<div class="wide"><table><tbody>{rows}</tbody></table></div>{more}'


def gallery(samples: Sequence[tuple[Line, PosedImage | None]]) -> str:
    """Predictions beside the truth, each as a picture with the object's axes drawn on it."""
    return '<div class="gallery">' + "".join(_figure(line, record) for line, record in samples) + "</div>"


def _figure(line: Line, record: PosedImage | None) -> str:
    error, sure, probability = line["pose_error"], line.get("confidence"), line["class_probability"]
    told = f"error {math.degrees(error):.1f}°" if error is not None and math.isfinite(error) else "error: no pose"
    mark = "" if line["correct"] else ' class="wrong"'
    title = (
        f"<b{mark}>{escape(spoken_name(line['predicted_category']))}</b> for {escape(spoken_name(line['category']))}"
        f"{'' if probability is None else f' ({100 * probability:.0f} %)'}, {told}"
    )
    poses = (("predicted", [line[name] for name in ANGLES]), ("true", [line["target"][name] for name in ANGLES]))
    columns = "".join(
        f"<span>{'' if record is None else _picture(record, line, pose, word)}<b>{word}</b> {_numbers(pose)}</span>"
        for word, pose in poses
    )
    confidence = "" if sure is None else f"{100 * sure:.0f} % sure · "
    below = [*_alternative(line), f"{confidence}{escape(line['image_id'])}, object {escape(str(line['object_id']))}"]
    return f"<figure><p>{title}</p><div>{columns}</div><figcaption>{'<br>'.join(below)}</figcaption></figure>"


def _alternative(line: Line) -> list[str]:
    other = line.get("alternative")
    if other is None:
        return []
    right = ", which is right" if alternative_hits(line) else ""
    return [f"or: {_numbers([other[name] for name in ANGLES])} ({100 * other['probability']:.0f} %){right}"]


def _finite(pose: Sequence[Any]) -> bool:
    return all(angle is not None and math.isfinite(angle) for angle in pose)


def _numbers(pose: Sequence[Any]) -> str:
    return escape(pose_text(pose)) if _finite(pose) else "none"


def _picture(record: PosedImage, line: Line, pose: Sequence[Any], title: str) -> str:
    """The object with the axes of one pose, small, as an img element."""
    assert record.image is not None
    item = next(item for item in record.objects if item.object_id == line["object_id"])
    x1, y1, x2, y2 = item.bbox
    x, y, half = (x1 + x2) / 2, (y1 + y2) / 2, AROUND * max(x2 - x1, y2 - y1, 2.0) / 2
    left, top = max(0, round(x - half)), max(0, round(y - half))
    right, bottom = min(record.width, round(x + half)), min(record.height, round(y + half))
    if right <= left or bottom <= top:  # a box outside its picture
        left, top, right, bottom = 0, 0, record.width, record.height
    scale = THUMBNAIL / max(right - left, bottom - top)
    size = [max(1, round(side * scale)) for side in (right - left, bottom - top)]
    image = record.image.crop((left, top, right, bottom)).resize(size, reducing_gap=3.0)
    if _finite(pose):
        center = ((x - left) * scale, (y - top) * scale)
        image = draw_axes(image, pose, center, min(max(12.0, 0.45 * max(x2 - x1, y2 - y1) * scale), 0.3 * THUMBNAIL))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    source = base64.b64encode(stream.getvalue()).decode("ascii")
    told = f"{title} axes of the {spoken_name(line['category'])}: {pose_text(pose) if _finite(pose) else 'none'}"
    return f'<img alt="{escape(told)}" src="data:image/jpeg;base64,{source}">'


def settings(values: Mapping[str, Any]) -> str:
    """The settings of the run, by name; of what belongs together under one name, what is not told elsewhere."""
    rows = []
    for name, value in values.items():
        if isinstance(value, dict):
            told = " · ".join(f"{escape(key)} {_told(part)}" for key, part in value.items() if values.get(key) != part)
        else:
            told = _told(value)
        rows.append(f'<tr><td>{escape(name)}</td><td class="text">{told}</td></tr>')
    return f"<table><tbody>{''.join(rows)}</tbody></table>"


def _told(value: Any) -> str:
    if not isinstance(value, list):
        return escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    text = escape(", ".join(map(str, value)))
    return text if len(value) <= FEW else f"<details><summary>{len(value)}</summary>{text}</details>"
