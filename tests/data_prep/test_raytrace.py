"""What the renderer makes of shapes: both sides of a face alike, textures where they belong, boxes as projected."""

import numpy as np
import pytest
from PIL import Image

from data_prep.rendering.meshfiles import load_shape
from data_prep.rendering.raytrace import Lights, TracedShape, View, render_layer, turn, turned_box
from data_prep.rendering.shapes import build
from llava_pose.geometry import project, rotation_matrix

LIGHTS = Lights(
    *(np.array(v, dtype=np.float32) for v in ((0.3, -0.6, 0.74), [0.8] * 3, (0, -1, 0), [0.3] * 3)),
    sky=np.full(3, 0.5, np.float32),
    ground=np.full(3, 0.3, np.float32),
)


def seen(shape, pose=(0.5, 0.3, 0.1), distance=14.0):
    view = View(np.array(pose), distance, 2000.0, np.array([80.0, 75.0]))
    return render_layer(TracedShape(shape), view, LIGHTS, 160, 150, True)


def obj_of(shape, faces, normals=""):
    """The shape as OBJ text; ``normals``: ``vn`` lines, one for each vertex, that its corners name."""
    rows = "".join(f"v {x} {y} {z}\n" for x, y, z in shape.vertices.tolist())
    corner = "{0}//{0}" if normals else "{0}"
    cells = "".join("f " + " ".join(corner.format(index + 1) for index in face) + "\n" for face in faces.tolist())
    return rows + normals + cells


@pytest.fixture(scope="module")
def teapot():
    return build("teapot", np.random.default_rng(4))


def test_shading_takes_no_notice_of_the_files_normals(tmp_path, teapot):
    (tmp_path / "none.obj").write_text(obj_of(teapot, teapot.faces))
    without = seen(load_shape(tmp_path / "none.obj"))
    lines = {
        "zero": "vn 0 0 0\n",
        "nan": "vn nan nan nan\n",
        "one way": "vn 0 0 -1\n",
    }
    for name, line in lines.items():
        (tmp_path / "some.obj").write_text(obj_of(teapot, teapot.faces, line * len(teapot.vertices)))
        np.testing.assert_array_equal(seen(load_shape(tmp_path / "some.obj")).color, without.color, name)


def test_shading_takes_no_notice_of_how_faces_are_wound(tmp_path, teapot):
    for name, flip in (("whole", np.ones(len(teapot.faces), bool)), ("half", np.arange(len(teapot.faces)) % 2 == 0)):
        faces = teapot.faces.copy()
        faces[flip] = faces[flip][:, ::-1]
        (tmp_path / "plain.obj").write_text(obj_of(teapot, teapot.faces))
        (tmp_path / "wound.obj").write_text(obj_of(teapot, faces))
        one, two = (seen(load_shape(tmp_path / f)) for f in ("plain.obj", "wound.obj"))
        np.testing.assert_array_equal(one.mask, two.mask)
        difference = np.abs(one.color - two.color).max(axis=0)
        # A ray along an edge may meet either of its faces: that may change a few pixels, no more.
        assert (difference > 0.01).mean() < 0.002, name
        assert one.color[:, one.mask].mean() > 0.3


def test_a_texture_shows_in_every_pixel_where_it_belongs(tmp_path):
    picture = np.zeros((8, 8, 3), dtype=np.uint8)
    picture[:4, :4], picture[:4, 4:], picture[4:, :4], picture[4:, 4:] = (
        (220, 20, 20), (20, 220, 20), (20, 20, 220), (220, 220, 20),
    )  # fmt: skip
    Image.fromarray(picture).save(tmp_path / "skin.png")
    (tmp_path / "a.mtl").write_text("newmtl m\nmap_Kd skin.png\n")
    # A square board that faces the camera: two triangles, four colours.
    (tmp_path / "a.obj").write_text(
        "mtllib a.mtl\nusemtl m\nv -1 0 -1\nv 1 0 -1\nv 1 0 1\nv -1 0 1\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"
        "f 1/1 2/2 3/3\nf 1/1 3/3 4/4\n"
    )
    layer = seen(load_shape(tmp_path / "a.obj"), pose=(0, 0, 0))
    height, width = layer.mask.shape
    rows, columns = (np.array([size // 4, size * 3 // 4]) for size in (height, width))
    found = layer.color[:, rows[:, None], columns].transpose(1, 2, 0)
    strongest = found > 0.6 * found.max(axis=2, keepdims=True)
    assert strongest.tolist() == [
        [[True, False, False], [False, True, False]],
        [[False, False, True], [True, True, False]],
    ]


def test_boxes_are_those_of_the_projected_points(teapot):
    rng = np.random.default_rng(0)
    for _ in range(20):
        pose = np.array([rng.uniform(0, 6.28), rng.uniform(-0.3, 1.2), rng.normal(0, 0.3)])
        distance, principal = rng.uniform(3, 30), rng.uniform(0, 200, 2)
        pixels = project(teapot.vertices, pose, distance, 2000.0, principal)
        expected = [*pixels.min(axis=0), *pixels.max(axis=0)]
        points = teapot.vertices.T
        np.testing.assert_allclose(View(pose, distance, 2000.0, principal).pixel_box(points), expected)
        turned = turn(rotation_matrix(pose), points)
        np.testing.assert_allclose(turned_box(turned, distance, 2000.0) + np.tile(principal, 2), expected, atol=1e-9)


def test_a_ray_through_a_projected_point_meets_the_point(teapot):
    view = View(np.array([2.0, 0.4, 0.2]), 12.0, 2000.0, np.array([60.0, 70.0]))
    points = teapot.vertices[::7]
    x, y = project(points, view.pose, view.distance, view.viewport, view.principal).T
    directions = view.rays(x.astype(np.float32), y.astype(np.float32))
    towards = points.T - view.origin[:, None]
    cosine = (directions * towards).sum(axis=0) / np.linalg.norm(directions, axis=0) / np.linalg.norm(towards, axis=0)
    np.testing.assert_allclose(cosine, 1, atol=1e-6)
    grid = view.grid_rays(np.array([10.5, 40.5, 90.5]), np.array([20.5, 30.5]))
    single = view.rays(np.tile(np.float32([10.5, 40.5, 90.5]), 2), np.repeat(np.float32([20.5, 30.5]), 3))
    np.testing.assert_allclose(grid, single, atol=1e-6)
