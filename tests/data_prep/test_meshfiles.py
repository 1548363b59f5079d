"""Rendering the user's own models: colours, pose, splits, and nothing read from elsewhere."""

import numpy as np
import pytest
from PIL import Image

from data_prep import render
from data_prep.rendering.meshfiles import load_shape
from data_prep.rendering.shapes import build
from data_prep.rendering.shapes.mesh import off_text
from llava_pose.errors import UserError
from llava_pose.scene import read_annotations


def render_to(out, *arguments):
    render.main(["--out", str(out), *map(str, arguments)])
    return out


def test_user_meshes_keep_their_colours_pose_and_split(tmp_path):
    car = tmp_path / "meshes" / "car"
    car.mkdir(parents=True)
    box = np.array([[x, y, z] for x in (0, 2) for y in (0, 5) for z in (0, 1)], dtype=float)
    sides = "013 032 467 475 045 051 237 276 026 064 157 173"  # the corners of twelve triangles
    faces = [[int(corner) for corner in side] for side in sides.split()]
    (car / "paint.mtl").write_text("newmtl red\nKd 0.9 0 0\nnewmtl green\nKd 0 0.9 0\n")
    rows = [f"v {x} {y} {z}" for x, y, z in box]
    cells = [f"f {a + 1} {b + 1} {c + 1}" for a, b, c in faces]
    # Faces 4 and 5 are the side at y = 0: the front.
    obj = ["mtllib paint.mtl", *rows, "usemtl red", *cells[4:6], "usemtl green", *cells[:4], *cells[6:]]
    (car / "a.obj").write_text("\n".join(obj))
    header = "ply\nformat ascii 1.0\nelement vertex 8\n" + "".join(f"property float {n}\n" for n in "xyz")
    header += "".join(f"property uchar {n}\n" for n in ("red", "green", "blue"))
    header += "element face 12\nproperty list uchar int vertex_indices\nend_header\n"
    points = "".join(f"{x} {y} {z} 10 20 200\n" for x, y, z in box)
    (car / "b.ply").write_text(header + points + "".join(f"3 {a} {b} {c}\n" for a, b, c in faces))
    shape = load_shape(car / "a.obj")
    np.testing.assert_allclose(np.ptp(shape.vertices, axis=0), np.array([2, 5, 1]) / np.sqrt(30), atol=2e-5)
    red = shape.materials[shape.face_material, 0] > shape.materials[shape.face_material, 1]
    assert red.sum() == 2 and (shape.vertices[shape.faces[red], 1] < -0.4).all()
    assert load_shape(car / "b.ply").materials[:, 2].min() > 0.7

    out = render_to(tmp_path / "out", "--images", 6, "--meshes", tmp_path / "meshes", "--size", 64, "--workers", 1)
    used = {
        split: {
            annotation["cad_index"]
            for name in (out / "lists" / f"car_imagenet_{split}.txt").read_text().split()
            for annotation in read_annotations(out / "annotations" / "car" / f"{name}.npz")
        }
        for split in ("train", "val")
    }
    assert used == {"train": {0}, "val": {1}}
    assert (out / "CAD" / "car" / "00.off").read_text() == off_text(shape)


def test_a_single_mesh_goes_to_train_only(tmp_path, capsys):
    folder = tmp_path / "meshes" / "Dining Table"
    folder.mkdir(parents=True)
    (folder / "a.off").write_text(off_text(build("bench", np.random.default_rng(0))))
    out = render_to(tmp_path / "out", "--images", 4, "--meshes", tmp_path / "meshes", "--size", 64, "--workers", 1)
    assert (out / "lists" / "diningtable_imagenet_val.txt").read_text() == ""
    assert len((out / "lists" / "diningtable_imagenet_train.txt").read_text().split()) == 4
    assert "diningtable has one model" in capsys.readouterr().err


def test_a_mesh_reads_nothing_outside_its_folder(tmp_path):
    folder = tmp_path / "meshes" / "car"
    folder.mkdir(parents=True)
    (tmp_path / "secret.mtl").write_text("newmtl red\nKd 0.9 0 0\n")
    (folder / "a.obj").write_text("mtllib ../../secret.mtl\nusemtl red\nv 0 0 0\nv 1 0 0\nv 0 1 1\nf 1 2 3\n")
    assert not (load_shape(folder / "a.obj").materials[:, 0] > 0.8).any()
    (tmp_path / "b.off").write_text(off_text(build("car", np.random.default_rng(0))))
    (folder / "b.off").symlink_to(tmp_path / "b.off")
    with pytest.raises(UserError, match=r"b\.off: a link out of the folder"):
        render_to(tmp_path / "out", "--images", 4, "--meshes", tmp_path / "meshes")


def test_a_texture_colours_the_faces(tmp_path):
    picture = Image.new("RGB", (8, 8), (230, 10, 10))
    picture.paste((10, 10, 230), (4, 0, 8, 8))
    picture.save(tmp_path / "skin.png")
    (tmp_path / "a.mtl").write_text("newmtl skin\nmap_Kd skin.png\n")
    rows = ["mtllib a.mtl", "usemtl skin", "v 0 0 0", "v 1 0 0", "v 0 0 1", "v 1 1 1", "vt 0.2 0.5", "vt 0.8 0.5"]
    (tmp_path / "a.obj").write_text("\n".join([*rows, "f 1/1 2/1 3/1", "f 2/2 3/2 4/2"]))
    shape = load_shape(tmp_path / "a.obj")
    uv = shape.skin.corner_uv.mean(axis=1)
    start, height, width = shape.skin.textures[shape.skin.face_texture].T
    column, row = (uv[:, 0] * width).astype(int), ((1 - uv[:, 1]) * height).astype(int)
    np.testing.assert_array_equal(shape.skin.texels[start + row * width + column], [[230, 10, 10], [10, 10, 230]])
