"""What is no object and no pose: things in front and behind, the camera, the patterns of materials."""

import cv2
import numpy as np
import pytest

from data_prep.rendering.camera import develop
from data_prep.rendering.patterns import SIDE, pattern_cubes
from data_prep.rendering.props import behind_prop, front_prop, lay_over
from data_prep.rendering.raytrace import Lights, TracedShape, View, render_layer
from data_prep.rendering.shapes.mesh import Builder, Material, Pattern

WIDTH, HEIGHT = 160, 120


def props(count):
    box = np.array([40.0, 30.0, 110.0, 90.0])
    for seed in range(count):
        rng = np.random.default_rng(seed)
        yield front_prop(rng, WIDTH, HEIGHT, box)
        yield behind_prop(rng, WIDTH, HEIGHT)


def test_a_prop_lies_in_the_picture_and_changes_what_it_covers_only():
    found = [prop for prop in props(60) if prop is not None]
    assert len(found) > 100
    for prop in found:
        assert prop.coverage.min() >= 0 and prop.coverage.max() <= 1
        assert prop.color.shape == (3, *prop.coverage.shape)
        assert prop.color.min() >= 0 and prop.color.max() <= 1
        canvas = np.full((3, HEIGHT, WIDTH), 2.0, dtype=np.float32)
        assert canvas[(slice(None), *prop.window)].shape == prop.color.shape
        lay_over(canvas, prop)
        changed = np.zeros((HEIGHT, WIDTH), dtype=bool)
        changed[prop.window] = prop.coverage > 0
        np.testing.assert_array_equal((canvas != 2.0).any(axis=0), changed)
    assert any((prop.coverage > 0.5).any() for prop in found)


def test_a_prop_outside_the_picture_is_none():
    rng = np.random.default_rng(0)
    away = np.array([900.0, 900.0, 940.0, 940.0])
    assert [front_prop(rng, WIDTH, HEIGHT, away) for _ in range(20)].count(None) == 20


def test_a_camera_moves_nothing():
    canvas = np.full((3, 200, 240), 0.1, dtype=np.float32)
    canvas[:, 60:140, 90:170] = 0.8
    exposures = []
    for seed in range(60):
        pixels = np.asarray(develop(np.random.default_rng(seed), canvas), dtype=float).mean(axis=2)
        assert pixels.shape == (200, 240)
        smooth = cv2.GaussianBlur(pixels, (0, 0), 3)
        rows, columns = np.nonzero(smooth > (smooth.max() + smooth.min()) / 2)
        # Vignetting may dim the outer sides of the square a little.
        assert (rows.mean(), columns.mean()) == pytest.approx((99.5, 129.5), abs=2)
        exposures.append(pixels[90:110, 120:140].mean())
    assert min(exposures) < 120 and max(exposures) > 230


def test_a_camera_leaves_its_canvas_alone():
    canvas = np.full((3, 64, 64), 0.5, dtype=np.float32)
    for seed in range(20):
        develop(np.random.default_rng(seed), canvas)
    assert (canvas == 0.5).all()


def test_every_pattern_uses_both_colours_and_bands_across_x_are_symmetric():
    cubes = pattern_cubes().reshape(len(Pattern), SIDE, SIDE, SIDE)
    assert cubes.min() >= 0 and cubes.max() <= 1
    for pattern in Pattern:
        assert 0.03 < cubes[pattern].mean() < 0.97, pattern
    np.testing.assert_array_equal(cubes[Pattern.BANDS_X, 1:], cubes[Pattern.BANDS_X, :0:-1])


def test_two_tone_paint_has_its_second_colour_above_half_height():
    builder = Builder()
    two_tone = Material((0.9, 0, 0), (0, 0, 0.9), specular=0.0, grain=1.0, pattern=Pattern.HALVES)
    builder.box((0, 0, 0), (1, 1, 1), two_tone)
    lights = Lights(*(np.array(v, dtype=np.float32) for v in ((0, -0.6, 0.8), [0.3] * 3, (0, -1, 0), [0.3] * 3)),
                    sky=np.full(3, 0.5, np.float32), ground=np.full(3, 0.3, np.float32))  # fmt: skip
    view = View(np.zeros(3), 25.0, 2000.0, np.array([60.0, 60.0]))
    layer = render_layer(TracedShape(builder.build()), view, lights, 120, 120, False)
    red = layer.color[0] > layer.color[2]
    rows = np.arange(layer.mask.shape[0])[:, None] + layer.top + 0.5
    inside = layer.mask & (np.abs(rows - 60) > 1)
    np.testing.assert_array_equal(red[inside], (rows > 60).repeat(red.shape[1], axis=1)[inside])
