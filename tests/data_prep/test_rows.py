"""Rows: what an annotation says of a crop is where it is in the crop's pixels, all the way from file to row."""

import numpy as np
import pytest
from PIL import Image

from data_prep.conversion.jobs import Settings, process
from data_prep.conversion.rows import Cut
from data_prep.conversion.source import Task
from data_prep.imagenet3d import ImageNet3D
from llava_pose.geometry import project
from llava_pose.scene import PosedImage
from tests.small_release import annotation, write_npz

POINTS = np.array([[0, 0, 0], [0.3, -0.2, 0.25], [-0.35, 0.1, -0.2], [0.1, 0.3, 0.35]])
COLORS = np.array([[255, 255, 255], [255, 60, 60], [60, 255, 60], [80, 80, 255]])


def painted(width, height, places, radius):
    """A dark image with a soft disc of each colour."""
    y, x = np.mgrid[:height, :width] + 0.5
    image = np.zeros((height, width, 3))
    for (u, v), color in zip(places, COLORS, strict=True):
        disc = np.clip(radius + 0.5 - np.hypot(x - u, y - v), 0, 1)
        image = image * (1 - disc[..., None]) + color * disc[..., None]
    return Image.fromarray(image.round().astype(np.uint8))


def found(image, color):
    """The middle of a colour's disc, in pixels."""
    pixels = np.asarray(image, dtype=float)
    likeness = np.clip(1 - np.abs(pixels - color).max(-1) / 80, 0, None)
    y, x = np.mgrid[: image.height, : image.width] + 0.5
    return np.array([(likeness * x).sum(), (likeness * y).sum()]) / likeness.sum()


@pytest.mark.parametrize(
    ("kind", "size", "width", "height"),
    [
        ("object", 512, 500, 375),
        ("object", 336, 500, 375),
        ("object", 100, 500, 375),
        ("box", 224, 500, 375),
        ("box", 96, 2000, 1500),
        ("object", 64, 2000, 1500),
        ("scene", 512, 500, 375),
    ],
)
def test_projected_points_are_found_where_they_are_in_the_row(tmp_path, kind, size, width, height):
    scale = width / 500
    pose, distance, viewport = (0.9, 0.35, 0.2), 6.3, 1500.0 * scale
    px, py = 231.4 * scale, 190.7 * scale
    places = project(POINTS, np.array(pose), distance, viewport, (px, py))
    low, high = places.min(0) - 25 * scale, places.max(0) + 25 * scale
    fields = dict(zip(("azimuth", "elevation", "theta"), pose, strict=True), distance=distance, viewport=viewport)
    for name in ("images", "annotations"):
        (tmp_path / name / "car").mkdir(parents=True)
    painted(width, height, places, 12 * scale).save(tmp_path / "images/car/n.JPEG", quality=97)
    write_npz(tmp_path / "annotations/car/n.npz", annotation(**fields, px=px, py=py, bbox=[*low, *high]))
    settings = Settings(Cut(kind, size, by_viewport=width == 2000))
    [row], skipped, problems = process(Task("car", "n"), ImageNet3D(tmp_path), settings)
    assert not skipped and not problems
    record = PosedImage.from_row(row)
    [item] = record.objects
    assert (item.azimuth, item.elevation, item.theta, item.distance) == (*pose, distance)
    moved = project(POINTS, item.pose, item.distance, item.viewport, (item.px, item.py))
    for color, expected in zip(COLORS, moved, strict=True):
        assert np.abs(found(record.image, color) - expected).max() < 0.3
    if kind == "object":
        assert abs(item.px - size / 2) <= 0.5 and abs(item.py - size / 2) <= 0.5


def test_objects_of_one_image_share_its_decoding_and_are_cut_each_for_itself(tmp_path):
    """Also where the largest scale decides how large the image is decoded."""
    for name in ("images", "annotations"):
        (tmp_path / name / "car").mkdir(parents=True)
    ramp = (np.arange(800) + 0.5)[None, :].repeat(600, 0) * 255 / 800
    Image.fromarray(ramp.round().astype(np.uint8)).convert("RGB").save(tmp_path / "images/car/n.JPEG", quality=97)
    boxes = [[100, 100, 500, 400], [300, 200, 340, 230]]
    write_npz(tmp_path / "annotations/car/n.npz", *(annotation(bbox=box, px=box[0], py=box[1]) for box in boxes))
    rows, _, problems = process(Task("car", "n"), ImageNet3D(tmp_path), Settings(Cut("box", 100)))
    assert not problems and len(rows) == 2
    for row, (x1, _, x2, _) in zip(rows, boxes, strict=True):
        record = PosedImage.from_row(row)
        shown = np.asarray(record.image, dtype=float)[50, :, 0] * 800 / 255
        pixel = 1.2 * (x2 - x1) / 100
        expected = x1 + (np.arange(100) + 0.5 - record.objects[0].px) * pixel
        assert abs((shown - expected).mean()) < 0.7 and np.abs(shown - expected).max() < 3 * 800 / 255
