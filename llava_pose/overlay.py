"""Pictures of poses: an object's own axes, boxes, CAD wireframes, angle plots, and the picture of an answer.

Every function returns a new RGB picture and leaves its input alone. Pixel (x, y) has its centre at
(x + 0.5, y + 0.5). Shapes are drawn several times too large and scaled down, which smooths their edges.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from .geometry import camera_center, project, rotation_matrix
from .words import pose_text, readable

Color = tuple[int, int, int]
Box = tuple[float, float, float, float]

AXES: dict[str, tuple[tuple[int, int, int], Color]] = {
    "front": ((0, -1, 0), (240, 62, 62)),
    "left": ((1, 0, 0), (47, 190, 90)),
    "up": ((0, 0, 1), (60, 132, 246)),
}
"""The object's own axes as unit vectors of its frame, each with the colour it is drawn in."""

BOX_COLOR: Color = (255, 200, 60)
STRIP_COLOR: Color = (24, 26, 31)
CHIP_COLOR: Color = (48, 52, 61)
TEXT_COLOR: Color = (240, 242, 245)
OUTLINE: Color = (16, 16, 16)

SUPERSAMPLING = 4
# Drawings larger than this on a side need no smoothing, and would cost much memory.
LARGEST_LAYER = 4096
# The axes are drawn as a camera sees them from this many axis lengths away: enough perspective to tell an end
# that comes closer from one that goes away.
AXIS_CAMERA_DISTANCE = 5.0
# The length of an axis over its box's longer side; without a box, over the shorter side of its part of the picture.
SHARE_OF_BOX, SHARE_OF_PART = 0.42, 0.36
# Pictures are enlarged to this width, so that the words under a small one can be read.
ANSWER_WIDTH = 560


@dataclass(frozen=True)
class PosedAnswer:
    """One object of an answer: ``pose`` (3,) in radians, not finite where none could be read; where it is, if known:
    ``box`` (x1, y1, x2, y2); and what else there is to say, if anything: ``note``."""

    name: str
    pose: ArrayLike
    box: Box | None = None
    note: str = ""


def draw_axes(image: Image.Image, pose: ArrayLike, center: Sequence[float], length: float) -> Image.Image:
    """The picture with the front, left and up axes of an object drawn from ``center`` (x, y) in pixels.

    pose (3,) in radians; ``length`` in pixels is that of an axis that lies in the image plane. What points away
    from the camera is drawn first, thinner and paler. A centre outside the picture is no error. Raises ValueError
    when a number is not finite or the length not positive.
    """
    _check_finite("pose", pose)
    _check_finite("center", center)
    if not (math.isfinite(length) and length > 0):
        raise ValueError(f"length must be a positive number of pixels, got {length}")
    origin = np.asarray(center, dtype=np.float64)
    points = np.array([direction for direction, _ in AXES.values()], dtype=np.float64)
    tips = project(points, pose, AXIS_CAMERA_DISTANCE, length * AXIS_CAMERA_DISTANCE, origin)
    towards_camera = (points @ rotation_matrix(pose).T)[:, 2]  # 1: straight at the camera, −1: straight away
    reach = 1.6 * length + 40
    box = (origin[0] - reach, origin[1] - reach, origin[0] + reach, origin[1] + reach)

    def paint(layer: _Layer) -> None:
        for index in np.argsort(towards_camera):
            name = list(AXES)[index]
            away = towards_camera[index] < -0.05
            color = _mixed(AXES[name][1], (128, 128, 128), 0.45) if away else AXES[name][1]
            layer.arrow(origin, tips[index], color, max(2.0, length / (22 if away else 15)))
        size = min(max(11.0, length / 7), 28.0)
        for index in np.argsort(towards_camera):
            layer.tip_label(origin, tips[index], list(AXES)[index], size)

    return _painted(image, box, paint)


def draw_box(image: Image.Image, box: Box, label: str = "") -> Image.Image:
    """The picture with a box (x1, y1, x2, y2) in pixels and its label on the box's upper edge.

    Parts outside the picture are cut off. Raises ValueError when the box is not finite or has no area.
    """
    _check_finite("box", box)
    x1, y1, x2, y2 = box
    if x2 <= x1 or y2 <= y1:
        raise ValueError(f"box must be (x1, y1, x2, y2) with x1 < x2 and y1 < y2, got {tuple(box)}")
    width = max(2.0, min(image.size) / 180)
    size = min(max(11.0, min(image.size) / 22), 28.0)

    def paint(layer: _Layer) -> None:
        corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]])
        layer.polyline(corners, (*BOX_COLOR, 255), width)
        if label:
            layer.tag((x1, y1), label, size)

    return _painted(image, (0.0, 0.0, *image.size), paint)


def draw_wireframe(
    image: Image.Image,
    vertices: ArrayLike,
    faces: ArrayLike,
    pose: ArrayLike,
    distance: float,
    viewport: float,
    principal: Sequence[float],
    color: Color = (40, 220, 230),
) -> Image.Image:
    """The picture with the edges of a CAD model as ``geometry.project`` sees it.

    vertices (V, 3) in object units in the canonical frame, faces (F, 3) of vertex numbers, pose (3,) in radians,
    distance in object units, viewport (focal length) and principal (2,) in pixels. Edges with an end behind the
    camera are left out. Raises ValueError when a number is not finite.
    """
    for name, value in (("vertices", vertices), ("pose", pose), ("principal", principal)):
        _check_finite(name, value)
    _check_finite("distance and viewport", (distance, viewport))
    points = np.asarray(vertices, dtype=np.float64).reshape(-1, 3)
    triangles = np.asarray(faces, dtype=np.int64).reshape(-1, 3)
    edges = np.unique(np.sort(triangles[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    depth = (camera_center(pose, distance) - points) @ rotation_matrix(pose)[2]
    edges = edges[(depth[edges] > 1e-6 * max(distance, 1.0)).all(axis=1)]
    pixels = np.zeros((len(points), 2))
    used = np.unique(edges)
    pixels[used] = project(points[used], pose, distance, viewport, principal)
    width = max(1.0, min(image.size) / 400)

    def paint(layer: _Layer) -> None:
        for segment in pixels[edges]:
            layer.polyline(segment, (*color, 210), width)

    return _painted(image, (0.0, 0.0, *image.size), paint)


def angle_plot(distributions: ArrayLike, pose: ArrayLike) -> Image.Image:
    """Three dials, one an angle: its distribution over the bins, and the pose read from it as a line.

    distributions (3, bins) of probabilities over [0, 2π); pose (3,) in radians. The azimuth's dial is the object
    seen from above with its front at the bottom, and shows where the camera stands. Raises ValueError on other
    shapes or numbers that are not finite.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # most uses of this module need no matplotlib
    from matplotlib.figure import Figure

    mass, angles = np.asarray(distributions, dtype=np.float64), np.asarray(pose, dtype=np.float64)
    if mass.ndim != 2 or len(mass) != 3 or angles.shape != (3,):
        raise ValueError(f"distributions must be (3, bins) and pose (3,), got {mass.shape} and {angles.shape}")
    _check_finite("distributions", mass)
    _check_finite("pose", angles)
    bins = mass.shape[1]
    centers = (np.arange(bins) + 0.5) * 2 * np.pi / bins
    figure = Figure(figsize=(7.8, 3.0), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    colors = [np.array(AXES[axis][1]) / 255 for axis in ("up", "left", "front")]  # the axis each angle turns about
    parts = pose_text(angles).split(", ")
    for index, (title, color) in enumerate(zip(parts, colors, strict=True)):
        dial: Any = figure.add_subplot(1, 3, index + 1, projection="polar")
        dial.set_theta_zero_location("S" if index == 0 else "E")
        dial.bar(centers, mass[index], width=2 * np.pi / bins, color=color, alpha=0.55)
        dial.plot([angles[index]] * 2, [0, mass[index].max()], color="black", linewidth=2)
        dial.set_title(title)
        dial.set_yticks([])
        dial.tick_params(labelsize=8)
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return Image.open(buffer).convert("RGB")


def answer_picture(image: Image.Image, answers: Sequence[PosedAnswer]) -> Image.Image:
    """The picture of an answer: each object's axes (and box, where known), and a strip of chips with the poses.

    Small pictures are enlarged to ``ANSWER_WIDTH``. Objects without a box have their axes spread evenly over the
    picture's middle, since the model does not say where they are. Several objects are numbered.
    """
    scale = max(1.0, ANSWER_WIDTH / image.width)
    picture = image.convert("RGB")
    if scale > 1:
        picture = picture.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    numbered = len(answers) > 1
    unplaced = [index for index, answer in enumerate(answers) if answer.box is None]
    chips = []
    for index, answer in enumerate(answers):
        name = f"{index + 1} {answer.name}" if numbered else answer.name
        chips.append(f"{name} · {pose_text(answer.pose)}")
        if answer.note:
            chips.append(answer.note)
        if answer.box is not None:
            x1, y1, x2, y2 = (scale * edge for edge in answer.box)
            picture = draw_box(picture, (x1, y1, x2, y2), name)
            center, length = ((x1 + x2) / 2, (y1 + y2) / 2), SHARE_OF_BOX * max(x2 - x1, y2 - y1)
        else:
            column = picture.width / len(unplaced)
            center = ((unplaced.index(index) + 0.5) * column, picture.height / 2)
            length = SHARE_OF_PART * min(column, picture.height)
            if numbered:
                picture = _tagged(picture, (center[0] - 0.5 * length, center[1] - 1.2 * length - 16), name)
        if readable(answer.pose):
            picture = draw_axes(picture, answer.pose, center, length)
    return _with_chips(picture, chips)


def _with_chips(picture: Image.Image, chips: Sequence[str]) -> Image.Image:
    """The picture above a strip: the colours of the axes, then one chip a line of text, all inside its width."""
    font_size = max(16.0, picture.width / 40)
    widest = max((_font(font_size).getlength(chip) for chip in chips), default=0.0)
    font_size = min(font_size, font_size * (picture.width - 3 * font_size) / max(widest, 1.0))
    font = _font(font_size)
    line, pad = round(font_size * 1.9), round(font_size * 0.6)
    strip = Image.new("RGB", (picture.width, pad + line * (len(chips) + 1)), STRIP_COLOR)
    draw = ImageDraw.Draw(strip)
    x = float(pad)
    for name, (_, color) in AXES.items():
        middle = pad / 2 + line / 2
        draw.line((x, middle, x + 1.4 * font_size, middle), fill=color, width=max(2, round(font_size / 5)))
        draw.text((x + 1.8 * font_size, middle), name, fill=TEXT_COLOR, font=font, anchor="lm")
        x += 3.2 * font_size + font.getlength(name)
    for index, chip in enumerate(chips):
        top = pad / 2 + line * (index + 1)
        right = pad + font.getlength(chip) + 1.2 * font_size
        draw.rounded_rectangle((pad, top, right, top + line * 0.86), radius=line * 0.3, fill=CHIP_COLOR)
        draw.text((pad + 0.6 * font_size, top + line * 0.43), chip, fill=TEXT_COLOR, font=font, anchor="lm")
    answer = Image.new("RGB", (picture.width, picture.height + strip.height))
    answer.paste(picture, (0, 0))
    answer.paste(strip, (0, picture.height))
    return answer


class _Layer:
    """A transparent, supersampled sheet over a part of a picture, drawn on in the picture's pixels."""

    def __init__(self, left: int, top: int, width: int, height: int) -> None:
        self.offset = np.array([left, top], dtype=np.float64)
        self.factor = max(1, min(SUPERSAMPLING, LARGEST_LAYER // max(width, height)))
        self.size = (width, height)
        self.sheet = Image.new("RGBA", (width * self.factor, height * self.factor), (0, 0, 0, 0))
        self.draw = ImageDraw.Draw(self.sheet)

    def _at(self, points: ArrayLike) -> list[tuple[float, float]]:
        placed = (np.asarray(points, dtype=np.float64).reshape(-1, 2) - self.offset) * self.factor
        # Pillow's coordinates are 32-bit: what lies further out than this cannot be seen anyway.
        return [(float(x), float(y)) for x, y in np.clip(placed, -1e6, 1e6)]

    def polyline(self, points: ArrayLike, color: tuple[int, ...], width: float) -> None:
        self.draw.line(self._at(points), fill=color, width=max(1, round(width * self.factor)), joint="curve")

    def arrow(self, start: NDArray[Any], tip: NDArray[Any], color: Color, width: float) -> None:
        """An outlined arrow; one that points at or away from the viewer becomes a dot."""
        span = tip - start
        reach = float(np.hypot(*span))
        head = 3.2 * width
        for fill, grow in (((*OUTLINE, 170), max(1.0, width * 0.18)), ((*color, 255), 0.0)):
            if reach < head * 0.5:
                radius = (0.5 * head + grow) * self.factor
                ((x, y),) = self._at(tip)
                self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
                continue
            along = span / reach
            across = np.array([-along[1], along[0]])
            neck = tip - along * min(head, reach)
            half, wing = width / 2 + grow, head * 0.5 + grow
            outline = [
                start - across * half,
                neck - across * half,
                neck - across * wing - along * grow,
                tip + along * grow * 1.5,
                neck + across * wing - along * grow,
                neck + across * half,
                start + across * half,
            ]
            self.draw.polygon(self._at(np.stack(outline)), fill=fill)

    def tip_label(self, start: NDArray[Any], tip: NDArray[Any], text: str, size: float) -> None:
        """Text just beyond an arrow's tip, in white with a dark edge."""
        span = tip - start
        reach = float(np.hypot(*span))
        # A short arrow's label goes to its lower right, clear of the dot.
        direction = span / reach if reach > 0.5 * size else np.array([1.6, 1.4])
        ((x, y),) = self._at(tip + direction * size * np.array([1.3, 0.8]))
        edge = max(1, round(size * self.factor / 9))
        font = _font(size * self.factor)
        self.draw.text(
            (x, y), text, (255, 255, 255, 255), font, anchor="mm", stroke_width=edge, stroke_fill=(*OUTLINE, 220)
        )

    def tag(self, corner: Sequence[float], text: str, size: float) -> None:
        """Text on a plate whose lower left corner is ``corner``, or as near as the upper edge allows."""
        font, unit = _font(size * self.factor), size * self.factor
        ((x, y),) = self._at((max(corner[0], 0.0), max(corner[1], 1.4 * size)))
        self.draw.rectangle((x, y - 1.4 * unit, x + font.getlength(text) + 0.8 * unit, y), fill=(*BOX_COLOR, 255))
        self.draw.text((x + 0.4 * unit, y - 0.7 * unit), text, (*OUTLINE, 255), font, anchor="lm")


def _painted(image: Image.Image, box: Box, paint: Callable[[_Layer], None]) -> Image.Image:
    """A copy of the picture with ``paint`` applied to a layer over ``box`` cut to the picture."""
    picture = image.convert("RGB") if image.mode != "RGB" else image.copy()
    left, top = max(0, math.floor(box[0])), max(0, math.floor(box[1]))
    right, bottom = min(image.width, math.ceil(box[2])), min(image.height, math.ceil(box[3]))
    if left >= right or top >= bottom:
        return picture
    layer = _Layer(left, top, right - left, bottom - top)
    paint(layer)
    sheet = layer.sheet.resize(layer.size, Image.Resampling.BOX)
    picture.paste(sheet, (left, top), sheet)
    return picture


def _tagged(picture: Image.Image, corner: tuple[float, float], text: str) -> Image.Image:
    return _painted(picture, (0.0, 0.0, *picture.size), lambda layer: layer.tag(corner, text, 16.0))


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=max(1.0, size))


def _mixed(color: Color, other: Color, share: float) -> Color:
    red, green, blue = (round(a * (1 - share) + b * share) for a, b in zip(color, other, strict=True))
    return red, green, blue


def _check_finite(name: str, value: Any) -> None:
    if not np.isfinite(np.asarray(value, dtype=np.float64)).all():
        raise ValueError(f"{name} must be finite, got {value}")
