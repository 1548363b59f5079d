"""The parametric objects: canonical pose, normalisation, symmetry, variety, OFF files."""

import numpy as np
import pytest

from data_prep.rendering.shapes import CATEGORIES, build
from data_prep.rendering.shapes.dress import dressed
from data_prep.rendering.shapes.materials import GLASS, HEADLIGHT, RUBBER, TAIL_LIGHT
from data_prep.rendering.shapes.mesh import Builder, Material, Pattern, off_text, stretched
from llava_pose import taxonomy

SEEDS = range(6)
GREY = Material((0.5, 0.5, 0.5))
# A propeller stands at any angle, books stand where they like, handles and panels at either side.
UNEVEN = ("aeroplane", "bookshelf", "camera", "microwave", "refrigerator")


def shapes(category):
    return [build(category, np.random.default_rng([seed, 11])) for seed in SEEDS]


def faces_in(shape, material):
    """Centres (N, 3) of the faces of a material."""
    rows = np.flatnonzero((shape.materials == np.float32(material.row())).all(axis=1))
    return shape.vertices[shape.faces[np.isin(shape.face_material, rows)]].mean(axis=1)


def test_there_are_at_least_twenty_eight_categories_and_the_taxonomy_knows_them_all():
    assert len(CATEGORIES) >= 28
    assert set(CATEGORIES) <= set(taxonomy.categories())


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_shape_is_centred_has_diagonal_one_and_sound_faces(category):
    for shape in shapes(category):
        low, high = shape.vertices.min(axis=0), shape.vertices.max(axis=0)
        np.testing.assert_allclose(low + high, 0, atol=5e-5)
        assert np.linalg.norm(high - low) == pytest.approx(1, abs=1e-4)
        assert 100 < len(shape.faces) < 3000
        assert shape.faces.min() >= 0 and shape.faces.max() < len(shape.vertices)
        assert shape.face_material.max() < len(shape.materials)
        np.testing.assert_allclose(np.linalg.norm(shape.corner_normals, axis=-1).mean(), 1, atol=0.01)


@pytest.mark.parametrize("category", CATEGORIES)
def test_a_seed_gives_one_shape_and_other_seeds_give_others(category):
    first, again, other = (build(category, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert off_text(first) == off_text(again)
    assert off_text(first) != off_text(other)


@pytest.mark.parametrize("category", [name for name in CATEGORIES if name not in UNEVEN])
def test_left_and_right_are_mirror_images(category):
    for shape in shapes(category):
        points = np.unique(np.round(shape.vertices, 4), axis=0)
        mirrored = np.unique(np.round(shape.vertices * [-1, 1, 1], 4), axis=0)
        assert len(points) == len(mirrored)
        np.testing.assert_allclose(points, mirrored, atol=2e-4)


@pytest.mark.parametrize("category", ["car", "bus", "train", "motorbike"])
def test_headlights_are_in_front_and_red_lights_behind(category):
    for shape in shapes(category):
        assert (faces_in(shape, HEADLIGHT)[:, 1] < -0.15).all()
        assert (faces_in(shape, TAIL_LIGHT)[:, 1] > 0.2).all()


@pytest.mark.parametrize("category", ["chair", "sofa", "bed", "bench", "toilet", "laptop", "wheelchair"])
def test_what_one_sits_at_has_its_back_behind(category):
    for shape in shapes(category):
        top = shape.vertices[shape.vertices[:, 2] > 0.9 * shape.vertices[:, 2].max()]
        assert top[:, 1].min() > 0


def test_an_aeroplane_has_its_fin_behind_and_wings_to_both_sides():
    for shape in shapes("aeroplane"):
        centre = shape.vertices[np.abs(shape.vertices[:, 0]) < 0.01]
        assert centre[centre[:, 2].argmax(), 1] > 0.2 or shape.vertices[shape.vertices[:, 1].argmax(), 2] > 0
        assert np.ptp(shape.vertices[:, 0]) > 0.5


def test_a_forklift_has_its_forks_low_in_front_and_its_weight_behind():
    for shape in shapes("forklift"):
        y = shape.vertices[:, 1]
        assert shape.vertices[y < y.min() + 0.05, 2].max() < 0.25
        assert (faces_in(shape, HEADLIGHT)[:, 1] < 0.1).all()
        assert (faces_in(shape, TAIL_LIGHT)[:, 1] > 0.3).all()


def test_a_tractor_has_its_big_wheels_behind():
    for shape in shapes("tractor"):
        tyre = faces_in(shape, RUBBER)
        assert (faces_in(shape, TAIL_LIGHT)[:, 1] > 0.1).all()
        assert tyre[tyre[:, 1] > 0, 2].max() > tyre[tyre[:, 1] < -0.2, 2].max() + 0.05


def test_a_camera_has_its_lens_in_front_and_no_glass_behind():
    for shape in shapes("camera"):
        glass, y = faces_in(shape, GLASS)[:, 1], shape.vertices[:, 1]
        assert glass.max() < y.max() - 0.1 and glass.min() < y.min() + 0.15


@pytest.mark.parametrize("category", ["microwave", "stove"])
def test_the_window_of_an_oven_is_in_front(category):
    for shape in shapes(category):
        assert (faces_in(shape, GLASS)[:, 1] < 0.6 * shape.vertices[:, 1].min()).all()


def test_a_refrigerator_has_its_handles_in_front():
    """Mirror images of it are no news: what stands at one side stands at either with equal chance."""
    sides = []
    for shape in (build("refrigerator", np.random.default_rng([seed, 11])) for seed in range(40)):
        foremost = shape.vertices[shape.vertices[:, 1] < shape.vertices[:, 1].min() + 0.01]
        assert np.ptp(foremost[:, 2]) > 0.01
        sides.append(np.sign(np.round(foremost[:, 0].mean(), 2)))
    assert {-1.0, 1.0} <= set(sides)


def test_a_boat_is_narrow_at_the_bow():
    for shape in shapes("boat"):
        y = shape.vertices[:, 1]
        bow, stern = shape.vertices[y < y.min() + 0.03], shape.vertices[y > y.max() - 0.08]
        assert np.abs(bow[:, 0]).max() < 0.6 * np.abs(stern[:, 0]).max()


def test_a_cup_has_its_handle_and_a_teapot_its_spout_in_front():
    for shape in shapes("cup"):
        rim = shape.vertices[shape.vertices[:, 2] > 0.95 * shape.vertices[:, 2].max()]
        middle = shape.vertices[np.abs(shape.vertices[:, 2]) < 0.1]
        assert middle[:, 1].min() < rim[:, 1].mean() - 1.3 * np.ptp(rim[:, 1]) / 2
    for shape in shapes("teapot"):
        front, back = shape.vertices[:, 1].argmin(), shape.vertices[:, 1].argmax()
        assert shape.vertices[front, 2] > shape.vertices[back, 2]


def test_a_stretched_shape_has_the_normals_of_what_it_became():
    builder = Builder()
    builder.ellipsoid((0, 0, 0), (1, 1, 1), GREY, rings=16, points=32)
    ball = builder.build()
    factors = np.array([1.15, 0.85, 1.0])
    shape = stretched(ball, factors)
    size = np.ptp(shape.vertices, axis=0) / np.ptp(ball.vertices, axis=0)
    np.testing.assert_allclose(size / size[2], factors, atol=1e-3)
    # On an ellipsoid the normal at p is along p / factors ** 2.
    corners = shape.vertices[shape.faces]
    outward = corners / factors**2
    outward /= np.linalg.norm(outward, axis=-1, keepdims=True)
    rounded = np.abs(corners[..., 2]).max(axis=1) < 0.2
    assert np.einsum("fki,fki->fk", outward, shape.corner_normals)[rounded].min() > 0.98


def test_a_dress_changes_the_materials_alone_and_mostly_leaves_glass_and_lamps():
    seen, kept = set(), 0
    for seed in range(40):
        shape = build("car", np.random.default_rng(seed))
        other = dressed(shape, np.random.default_rng(seed))
        assert off_text(other) == off_text(shape)
        assert other.materials.shape == shape.materials.shape
        assert (other.materials[:, :6] >= 0).all() and (other.materials[:, :6] <= 1).all()
        seen |= {int(kind) for kind in other.materials[:, 13]}
        plain = len(np.unique(other.materials, axis=0)) == 1
        kept += bool(len(faces_in(other, TAIL_LIGHT)))
        assert plain != bool(len(faces_in(other, TAIL_LIGHT)))
    assert 25 < kept < 40 and len(seen) == len(Pattern)


def test_an_off_file_says_what_the_shape_is():
    shape = build("chair", np.random.default_rng(3))
    words = off_text(shape).split()
    assert words[0] == "OFF" and words[3] == "0"
    vertices, faces = int(words[1]), int(words[2])
    numbers = np.array(words[4:], dtype=float)
    np.testing.assert_array_equal(numbers[: 3 * vertices].reshape(-1, 3), shape.vertices)
    cells = numbers[3 * vertices :].reshape(faces, 4)
    assert (cells[:, 0] == 3).all()
    np.testing.assert_array_equal(cells[:, 1:], shape.faces)


def test_normals_of_round_parts_are_smooth_and_point_outward():
    builder = Builder()
    builder.ellipsoid((0, 0, 0), (1, 1, 1), Material((0.5, 0.5, 0.5)), rings=12, points=24)
    shape = builder.build()
    corners = shape.vertices[shape.faces]
    outward = corners / np.linalg.norm(corners, axis=-1, keepdims=True)
    rounded = np.abs(corners[..., 2]).max(axis=1) < 0.25
    assert np.einsum("fki,fki->fk", outward, shape.corner_normals)[rounded].min() > 0.97


def test_a_mesh_without_extent_is_refused():
    builder = Builder()
    builder.quad(np.zeros((4, 3)), Material((0.5, 0.5, 0.5)))
    with pytest.raises(ValueError, match="no extent"):
        builder.build()
