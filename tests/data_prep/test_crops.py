"""Crops: annotations stay exact, pixels land where the annotation says, padding is zero."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.conversion.crops import Region, box_region, clip_box, crop_image, crop_object, object_region
from llava_pose.errors import UserError
from llava_pose.geometry import project
from llava_pose.scene import PosedObject

ITEM = PosedObject(
    object_id=0,
    category="car",
    bbox=(40.0, 30.0, 160.0, 110.0),
    azimuth=0.7,
    elevation=0.3,
    theta=0.2,
    distance=5.0,
    px=101.5,
    py=71.25,
    viewport=800.0,
    cad_index=1,
    status="status_good",
    dense="",
)


def pixels_of(points, item):
    return project(points, item.pose, item.distance, item.viewport, (item.px, item.py))


@given(
    distance=st.floats(1.5, 40),
    px=st.floats(20, 180),
    py=st.floats(20, 120),
    size=st.sampled_from([96, 112, 224, 512]),
    box=st.booleans(),
)
def test_projection_with_the_new_annotation_is_the_mapped_old_projection(distance, px, py, size, box):
    item = dataclasses.replace(ITEM, distance=distance, px=px, py=py, bbox=(px - 9, py - 8, px + 12, py + 10))
    region = box_region(item) if box else object_region(item)
    moved = crop_object(item, region, size)
    points = np.random.default_rng(3).uniform(-0.5, 0.5, (9, 3))
    mapped = (pixels_of(points, item) - [region.x0, region.y0]) * size / region.side
    np.testing.assert_allclose(pixels_of(points, moved), mapped, atol=1e-6)
    assert (moved.distance, moved.azimuth, moved.theta) == (item.distance, item.azimuth, item.theta)


def test_the_object_crop_is_the_published_one():
    moved = crop_object(ITEM, object_region(ITEM), 512)
    scale = 5.0 / 4.0
    assert moved.px == moved.py == 256.0
    assert moved.viewport == pytest.approx(800 * scale)
    expected = [(value - middle) * scale + 256 for value, middle in zip(ITEM.bbox, (101.5, 71.25) * 2, strict=True)]
    assert moved.bbox == pytest.approx(expected)
    half = crop_object(ITEM, object_region(ITEM), 256)
    assert half.px == 128.0 and half.viewport == pytest.approx(400 * scale)


@given(viewport=st.floats(200, 6000), distance=st.floats(0.5, 30))
def test_by_viewport_an_object_is_as_large_in_its_crop_as_with_imagenet3ds_viewport(viewport, distance):
    item = dataclasses.replace(ITEM, viewport=viewport, distance=distance, bbox=(101, 71, 102, 72))
    usual = dataclasses.replace(item, viewport=2000.0)
    seen = crop_object(item, object_region(item, by_viewport=True), 512)
    assert seen.viewport == pytest.approx(crop_object(usual, object_region(usual), 512).viewport)
    assert object_region(usual, by_viewport=True) == object_region(usual)


def test_the_box_crop_is_a_square_with_a_margin_around_the_box():
    region = box_region(ITEM)
    assert region == Region(100 - 72, 70 - 72, 144)
    assert crop_object(ITEM, region, 288).bbox == pytest.approx((24, 64, 264, 224))


def waves_at(x, y):
    return np.stack([128 + 100 * np.sin(x / 17), 128 + 100 * np.cos(y / 13), 128 + 90 * np.sin((x + y) / 23)], -1)


def smooth_picture(width=200, height=140):
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return waves_at(x, y).round().astype(np.uint8)


@pytest.mark.parametrize("distance", [2.0, 3.9, 4.0, 5.0, 9.3, 31.7])
@pytest.mark.parametrize("size", [512, 336, 100])
def test_the_crop_is_that_of_scaling_the_whole_image_and_cutting_it_out(distance, size):
    item = dataclasses.replace(ITEM, distance=distance)
    crop, region = crop_image(smooth_picture(), object_region(item), size)
    scale = distance / 4 * size / 512
    # The waves themselves, at the source position of each output pixel's middle.
    u, v = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    x, y = region.x0 + u / scale, region.y0 + v / scale
    inside = (x > 3) & (x < 197) & (y > 3) & (y < 137)
    outside = (x < 0) | (x > 200) | (y < 0) | (y > 140)
    assert inside.sum() > 200 and (distance > 9 or outside.sum() > 400)
    assert np.abs(crop.astype(float) - waves_at(x, y))[inside].mean() < 1.5
    assert np.all(crop[outside] == 0)


@given(distance=st.floats(1, 60), px=st.floats(-20, 220), py=st.floats(-20, 160), size=st.integers(32, 600))
def test_a_crop_shows_the_region_to_half_an_output_pixel(distance, px, py, size):
    item = dataclasses.replace(ITEM, distance=distance, px=px, py=py)
    region = object_region(item)
    try:
        _, moved = crop_image(smooth_picture(), region, size)
    except UserError:
        return
    pixel = region.side / size
    assert moved.side == region.side
    assert abs(moved.x0 - region.x0) <= pixel * 0.5001 and abs(moved.y0 - region.y0) <= pixel * 0.5001


@settings(max_examples=300)
@given(distance=st.floats(2.5, 15), px=st.floats(60, 140))
def test_no_crop_is_shifted_against_its_annotation(distance, px):
    """Where a ramp's brightness says that pixels come from is where the annotation says, to an eighth of a pixel."""
    # Four levels a source pixel: rounding to whole levels says a place to an eighth of a pixel, whatever the scale.
    levels = np.clip((np.arange(200) - 68) * 4, 0, 252).astype(np.uint8)
    ramp = levels[None, :, None].repeat(140, axis=0).repeat(3, axis=2)
    item = dataclasses.replace(ITEM, distance=distance, px=px)
    crop, region = crop_image(ramp, object_region(item), 512)
    moved = crop_object(item, region, 512)
    shown = np.flatnonzero((crop[256, :, 0] > 20) & (crop[256, :, 0] < 232))
    found = 68 + crop[256, shown, 0] / 4 + 0.5
    expected = item.px + (shown + 0.5 - moved.px) * 4 / distance
    # So near a scale of 1 that the patch keeps its size, OpenCV copies it: less than half a pixel over its whole width.
    copied = abs(distance / 4 - 1) < 1 / 200
    assert len(shown) > 25
    assert abs((found - expected).mean()) < (0.5 if copied else 0.13) and np.abs(found - expected).max() < 0.75


@pytest.mark.parametrize("distance", [2.5, 4.0, 6.5, 20.0])
@pytest.mark.parametrize("size", [512, 200])
def test_the_content_is_what_pillow_makes_of_the_region(distance, size):
    rough = np.random.default_rng(1).integers(0, 256, (35, 50, 3), dtype=np.uint8)
    picture = Image.fromarray(rough).resize((200, 140), Image.Resampling.BICUBIC)
    crop, region = crop_image(np.asarray(picture), object_region(dataclasses.replace(ITEM, distance=distance)), size)
    border = 600  # so far out no region reaches
    wide = Image.new("RGB", (200 + 2 * border, 140 + 2 * border))
    wide.paste(picture, (border, border))
    x0, y0 = region.x0 + border, region.y0 + border
    box = (x0, y0, x0 + region.side, y0 + region.side)
    expected = np.asarray(wide.resize((size, size), Image.Resampling.BICUBIC, box=box), dtype=float)
    x, y = (start + (np.arange(size) + 0.5) * region.side / size for start in (region.x0, region.y0))
    inside = ((y > 4) & (y < 136))[:, None] & ((x > 4) & (x < 196))[None, :]
    difference = np.abs(crop.astype(float) - expected)[inside]
    assert inside.sum() > 500 and difference.mean() < 4 and np.quantile(difference, 0.99) < 16


def test_a_small_crop_averages_over_what_it_shrinks():
    pixels = np.zeros((400, 400, 3), dtype=np.uint8)
    pixels[::2, ::2] = pixels[1::2, 1::2] = 255
    item = dataclasses.replace(ITEM, distance=512 * 4 / 400, px=200.0, py=200.0)
    crop, _ = crop_image(pixels, object_region(item), 50)
    assert crop.shape == (50, 50, 3)
    assert np.all(np.abs(crop.astype(int) - 128) <= 4)


@given(distance=st.floats(0.1, 300), px=st.floats(1, 199), py=st.floats(1, 139), size=st.integers(1, 300))
def test_every_crop_around_a_point_of_the_image_has_the_asked_size(distance, px, py, size):
    item = dataclasses.replace(ITEM, distance=distance, px=px, py=py)
    try:
        crop, _ = crop_image(smooth_picture(), object_region(item), size)
    except UserError as error:
        assert "less than a pixel" in str(error)
    else:
        assert crop.shape == (size, size, 3) and crop.dtype == np.uint8


def test_a_region_too_small_to_show_anything_is_refused():
    with pytest.raises(UserError, match="the crop shows less than two pixels"):
        crop_image(smooth_picture(), object_region(dataclasses.replace(ITEM, distance=5000.0)), 512)


def test_an_image_that_fills_the_crop_has_no_black_border():
    image = np.full((64, 64, 3), 200, dtype=np.uint8)
    for size in (48, 64, 100):
        crop, shown = crop_image(image, Region(0, 0, 64), size)
        assert np.all(crop == 200) and shown == Region(0, 0, 64)


def test_boxes_are_cut_to_the_image_and_refused_outside():
    assert clip_box(dataclasses.replace(ITEM, bbox=(-5.0, -5.0, 10.0, 300.0)), 200, 140).bbox == (0.0, 0.0, 10.0, 140.0)
    for outside in [(-9.0, 0.0, 0.0, 5.0), (200.0, 0.0, 210.0, 5.0), (0.0, 140.0, 9.0, 150.0)]:
        with pytest.raises(UserError, match=r"bbox: .* lies outside the 200x140 image"):
            clip_box(dataclasses.replace(ITEM, bbox=outside), 200, 140)
