"""What is wrong with a model file is said with its place and its value."""

import json
import struct
import subprocess
import sys

import numpy as np
import pytest
import trimesh

from data_prep.rendering.axes import CANONICAL
from data_prep.rendering.cad import Beside, BrokenModel, finish, read_model
from data_prep.rendering.meshfiles import load_shape
from llava_pose.errors import UserError

OFF = "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 1\n3 0 1 2\n"
OBJ = "v 0 0 0\nv 1 0 0\nv 0 1 1\n"
PLY = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n" \
    "element face 1\nproperty list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 1\n3 0 1 2\n"  # fmt: skip
STL = "solid a\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\nendsolid\n"
PLY_BINARY = PLY[: PLY.index("0 0 0")].replace("ascii", "binary_little_endian").encode() + struct.pack(
    "<9fB3i", *[0, 0, 0, 1, 0, 0, 0, 1, 1], 3, 0, 1, 2
)
STL_BINARY = bytes(80) + struct.pack("<I12fH", 1, *[0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0], 0)
GLB = trimesh.creation.box().export(file_type="glb")


def changed_glb(change):
    """The box's GLB with its JSON changed."""
    size = struct.unpack("<I", GLB[12:16])[0]
    content = json.loads(GLB[20 : 20 + size])
    change(content)
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    rest = GLB[20 + size :]
    return b"glTF" + struct.pack("<4I", 2, 20 + len(text) + len(rest), len(text), 0x4E4F534A) + text + rest


def what_is_wrong(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    with pytest.raises(UserError) as caught:
        load_shape(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.off", "", "an empty file"),
        ("a.off", " \n\n", "3 bytes, nothing but blanks"),
        ("a.off", OFF.replace("OFF", "FOO"), "line 1: starts with 'FOO"),
        ("a.off", OFF.replace("OFF", "4OFF"), "line 1: '4OFF': only OFF, COFF"),
        ("a.off", OFF.replace("OFF", "OFF BINARY"), "line 1: 'OFF BINARY'"),
        ("a.off", OFF.replace("3 1 0", "three 1 0"), "line 2: 'three 1 0' are no counts of vertices and faces"),
        ("a.off", "OFF\n", "ends before the counts"),
        ("a.off", OFF.replace("3 1 0", "3 9 0"), "line 2: says 9 faces, but the file ends after 1"),
        ("a.off", OFF[:20], "line 2: says 3 vertices, but the file ends after 2"),
        ("a.off", OFF.replace("1 0 0", "1 x 0"), "line 4: vertex 1: 'x' is not a number"),
        ("a.off", OFF.replace("1 0 0", "1 0"), "line 4: vertex 1 has 2 numbers, not 3"),
        ("a.off", OFF.replace("1 0 0", "1 nan 0"), "vertex 1: (1.0, nan, 0.0) is not finite"),
        ("a.off", OFF.replace("1 0 0", "1 -inf 0"), "vertex 1: (1.0, -inf, 0.0) is not finite"),
        ("a.off", OFF.replace("3 0 1 2", "3 0 1 7"), "line 6: face 0: vertex 7 of 3, counted from 0"),
        ("a.off", OFF.replace("3 0 1 2", "3 0 -1 2"), "line 6: face 0: '-1' is no vertex"),
        ("a.off", OFF.replace("3 0 1 2", "3 0 1"), "line 6: face 0: says 3 corners and lists 2"),
        ("a.off", "OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 1\n", "a cloud of 3 points without faces"),
        ("a.obj", "# nothing\n", "no vertices and no faces"),
        ("a.obj", OBJ, "a cloud of 3 points without faces"),
        ("a.obj", OBJ + "f 1 2 9\n", "line 4: f '1 2 9': there are 3 v, counted from 1"),
        ("a.obj", OBJ + "f 0 1 2\n", "line 4: f '0 1 2': there are 3 v"),
        ("a.obj", OBJ + "f -1 -2 -4\n", "line 4: f '-1 -2 -4': there are 3 v"),
        ("a.obj", OBJ + "vt 0 0\nf 1/1 2/2 3/1\n", "line 5: f '1/1 2/2 3/1': there are 1 vt"),
        ("a.obj", OBJ + "f 1 2\n", "line 4: f '1 2': no face of three corners or more"),
        ("a.obj", OBJ + "f 1 2 x\n", "line 4: f '1 2 x'"),
        ("a.obj", OBJ.replace("1 0 0", "1 0") + "f 1 2 3\n", "line 2: v '1 0': not 3 numbers or more"),
        ("a.obj", OBJ.replace("1 0 0", "1 0 O") + "f 1 2 3\n", "line 2: v '1 0 O'"),
        ("a.obj", OBJ.replace("1 0 0", "1 0 nan") + "f 1 2 3\n", "vertex 1: (1.0, 0.0, nan) is not finite"),
        ("a.ply", PLY.replace("ply", "plywood"), "line 1: starts with 'plywood"),
        ("a.ply", PLY.replace("end_header", "end"), "header: no end_header"),
        ("a.ply", PLY.replace("format ascii 1.0\n", ""), "header: no format"),
        ("a.ply", PLY.replace("float y", "foat y"), "line 5: 'property foat y' is no line of a PLY header"),
        ("a.ply", PLY.replace("float y", "float x"), "line 5: 'property float x': a second property of that name"),
        ("a.ply", PLY.replace("float y", "float w"), "header: element vertex has no property y"),
        ("a.ply", PLY.replace("face 1", "face 4"), "says 4 of face, but the file ends after 1"),
        ("a.ply", PLY.replace("1 0 0", "1 a 0"), "line 11: vertex: 'a' is not a number"),
        ("a.ply", PLY.replace("1 0 0", "1 0"), "line 11: vertex lacks some of z"),
        ("a.ply", PLY.replace("3 0 1 2", "3 0 1 2.5"), "face 0: 2.5 is no vertex"),
        ("a.ply", PLY.replace("3 0 1 2", "3 0 1 5"), "face 0: corners [0, 1, 5], but vertices are 0 to 2"),
        ("a.ply", PLY.replace("3 0 1 2", "2 0 1"), "face 0: 2 corners, not 3 or more"),
        ("a.ply", PLY + "1 2 3\n", "line 14: more lines than the header says"),
        ("a.ply", PLY_BINARY[:-5], "says 1 of face, but the file ends after 0"),
        ("a.ply", PLY_BINARY[:-20], "says 3 of vertex, but the file ends after 2"),
        ("a.ply", PLY_BINARY + b"more", "4 bytes more than the header says"),
        ("a.stl", STL_BINARY[:-7], "byte 80: 1 triangles take 134 bytes, the file has 127"),
        ("a.stl", STL_BINARY + b"x", "byte 80: 1 triangles take 134 bytes, the file has 135"),
        ("a.stl", b"\0\1\2", "3 bytes: neither a text that starts with solid nor a binary file"),
        ("a.stl", STL.replace("endsolid", ""), "ends after 3 vertices without endsolid"),
        ("a.stl", STL.replace("1 0 0", "1 0"), "line 5: a vertex of 2 numbers, not 3"),
        ("a.stl", STL.replace("1 0 0", "1 0 e"), "line 5: vertex: 'e' is not a number"),
        ("a.stl", "solid a\nendsolid a\n", "no vertices and no faces"),
        ("a.glb", b"glTF\1\0\0\0" + GLB[8:], "byte 4: glTF version 1, not 2"),
        ("a.glb", GLB[:-9], f"byte 8: says {len(GLB)} bytes, the file has {len(GLB) - 9}"),
        ("a.glb", GLB.replace(b'{"scene"', b'["scene"'), "byte 20: the JSON part cannot be read"),
        ("a.glb", changed_glb(lambda c: c.update(extensionsRequired=["KHR_draco_mesh_compression"])),
         "extensionsRequired: KHR_draco_mesh_compression is not read"),
        ("a.glb", changed_glb(lambda c: c.update(nodes=[{"children": [0]}])), "no vertices and no faces"),
        ("a.glb", changed_glb(lambda c: c["accessors"][1].update(count=3)), "indices up to 7, but its mesh has 3"),
        ("a.glb", changed_glb(lambda c: c["accessors"][0].update(count=10**12)), "ValueError: cannot reshape"),
    ],
)  # fmt: skip
def test_the_place_and_the_value_are_named(tmp_path, name, data, message):
    assert what_is_wrong(tmp_path, name, data).startswith(message) or message in what_is_wrong(tmp_path, name, data)


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.obj", PLY, "PLY, not what .obj says"),
        ("a.ply", OFF, "OFF, not what .ply says"),
        ("a.off", GLB, "binary glTF, not what .off says"),
        ("a.GLB", PLY, "PLY, not what .GLB says"),
        ("a.obj", STL, "STL"),
        ("a.obj", "<!DOCTYPE html><html><body>404</body></html>", "a web page or XML"),
        ("a.glb", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "a Git LFS pointer"),
        ("a.stl", b"PK\3\4....", "a zip archive"),
        ("a.off", b"\x1f\x8b\x08....", "a gzip archive"),
        ("a.ply", b"\x89PNG\r\n\x1a\n", "a picture"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_called_what_it_is(tmp_path, name, data, kind):
    message = what_is_wrong(tmp_path, name, data)
    assert message.startswith("starts with ") and kind in message


def test_a_broken_colour_in_a_material_names_library_and_line(tmp_path):
    (tmp_path / "paint.mtl").write_text("newmtl red\nKd 0.9 zero 0\n")
    message = what_is_wrong(tmp_path, "a.obj", OBJ + "mtllib paint.mtl\nusemtl red\nf 1 2 3\n")
    assert message == "paint.mtl: line 2: kd: 'zero' is not a number"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n", "1 faces, none of which has an area"),
        (OBJ + "f 1 1 2\nf 2 3 3\n", "2 faces, none of which has an area"),
        ("v 0 0 0\nv 1 0 0\nv 0 1e-7 0\nf 1 2 3\n", "1 faces, all thinner than 1/100000 of the model"),
        ("v 0 0 0\nv 1e200 0 0\nv 0 1e200 0\nf 1 2 3\n", "the mesh has no extent"),
    ],
)
def test_models_without_size_are_refused(tmp_path, rows, message):
    assert what_is_wrong(tmp_path, "a.obj", rows).startswith(message)


def test_what_no_face_uses_does_no_harm(tmp_path):
    """Points that are not finite or far away, and faces without area, neither stop a model nor change its scale."""
    (tmp_path / "clean.obj").write_text(OBJ + "f 1 2 3\n")
    (tmp_path / "littered.obj").write_text(
        "v nan nan nan\nv 1e9 0 0\n" + OBJ + "v -5e8 1 1\nf 3 4 5\nf 3 3 2\nf 2 2 6\nf 4 4 4\n"
    )
    clean, littered = (load_shape(tmp_path / name) for name in ("clean.obj", "littered.obj"))
    np.testing.assert_array_equal(clean.vertices, littered.vertices)
    np.testing.assert_array_equal(clean.faces, littered.faces)


def test_models_beyond_the_limits_are_refused_before_they_fill_the_memory(tmp_path, monkeypatch):
    box = trimesh.creation.box()
    box.export(tmp_path / "a.stl")
    monkeypatch.setattr("data_prep.rendering.cad.finishing.MAX_FACES", 11)
    with pytest.raises(UserError, match=r"a\.stl: 12 faces, more than 11: simplify it first"):
        load_shape(tmp_path / "a.stl")
    monkeypatch.setattr("data_prep.rendering.meshfiles.MAX_BYTES", 600)
    with pytest.raises(UserError, match=r"a\.stl: 684 bytes, more than 600: simplify it first"):
        load_shape(tmp_path / "a.stl")


def test_a_large_model_takes_less_than_a_kilobyte_a_face(tmp_path):
    """Measured in a process of its own, above what the same process takes for a small one."""
    side = 400
    x, y = np.meshgrid(np.arange(side), np.arange(side))
    points = np.column_stack([x.ravel(), y.ravel(), np.sin(x / 9).ravel() * np.cos(y / 9).ravel()])
    corner = (y[:-1, :-1] * side + x[:-1, :-1]).ravel()
    faces = np.concatenate([corner[:, None] + [0, 1, side], corner[:, None] + [1, side + 1, side]])
    rows = "".join(f"{a:.4f} {b:.4f} {c:.4f}\n" for a, b, c in points.tolist())
    cells = "".join(f"3 {a} {b} {c}\n" for a, b, c in faces.tolist())
    (tmp_path / "large.off").write_text(f"OFF\n{len(points)} {len(faces)} 0\n{rows}{cells}")
    (tmp_path / "small.off").write_text(OFF)
    code = (
        "import resource, sys; from pathlib import Path; from data_prep.rendering.meshfiles import load_shape; "
        "print(len(load_shape(Path(sys.argv[1])).faces), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    results = [
        subprocess.run([sys.executable, "-c", code, tmp_path / name], capture_output=True, text=True, check=True)
        for name in ("small.off", "large.off")
    ]
    (one, base), (many, peak) = (map(int, result.stdout.split()) for result in results)
    assert (one, many) == (1, len(faces))
    assert (peak - base) * 1024 < 1024 * len(faces)


def test_no_damage_leads_to_anything_but_a_clear_refusal(tmp_path):
    """Valid files with bytes cut out, doubled or changed: read, or refused in one line."""
    random = np.random.default_rng(0)
    seeds = {".off": OFF.encode(), ".obj": (OBJ + "vt 0 0\nf 1/1 2/1 3/1\n").encode(), ".ply": PLY.encode(),
             ".PLY": PLY_BINARY, ".stl": STL.encode(), ".STL": STL_BINARY, ".glb": GLB}  # fmt: skip
    pieces = [b"nan", b"-1", b"1e400", b"99999999999999999999", b"\0\0", b"\xff", b"\n", b" ", b"//", b"x", b""]
    read = 0
    for _ in range(1500):
        suffix = list(seeds)[random.integers(len(seeds))]
        data = seeds[suffix]
        for _ in range(random.integers(1, 4)):
            start, length = random.integers(len(data) + 1), random.integers(6)
            data = data[:start] + pieces[random.integers(len(pieces))] + data[start + length :]
        path = tmp_path / f"a{suffix}"
        try:
            shape = finish(read_model(path, data, Beside(path)), CANONICAL)
        except BrokenModel:
            continue
        read += 1
        assert np.isfinite(shape.vertices).all() and shape.faces.max() < len(shape.vertices)
    assert 20 < read < 1000
