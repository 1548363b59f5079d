"""The readers of model files: what each format can say, and its writers' habits."""

import struct

import numpy as np
import pytest
import trimesh
from PIL import Image

from data_prep.rendering.axes import CANONICAL
from data_prep.rendering.cad import Beside, finish, read_model
from data_prep.rendering.meshfiles import load_shape
from data_prep.rendering.shapes import build

POINTS = [(0, 0, 0), (2, 0, 0), (0, 1, 0), (0, 0, 1)]
TRIANGLES = [(0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)]
VERTEX_LINES = "".join(f"{x} {y} {z}\n" for x, y, z in POINTS)
FACE_LINES = "".join(f"3 {a} {b} {c}\n" for a, b, c in TRIANGLES)
OBJ_VERTICES = "".join(f"v {x} {y} {z}\n" for x, y, z in POINTS)
PLY_HEAD = "ply\nformat {order} 1.0\ncomment made by hand\nelement vertex 4\nproperty float x\nproperty float y\n" \
    "property float z\n{more}element face {faces}\nproperty list uchar int vertex_indices\nend_header\n"  # fmt: skip


def model(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_model(path, path.read_bytes(), Beside(path))


def triangles(read):
    """The triangles as a set of sets of points, whatever their order and winding."""
    return {frozenset(map(tuple, corners)) for corners in read.vertices[read.faces].tolist()}


EXPECTED = {frozenset(tuple(map(float, POINTS[k])) for k in face) for face in TRIANGLES}


def stl_bytes(title=b"binary"):
    records = b"".join(
        struct.pack("<12fH", 0, 0, 0, *(value for k in face for value in POINTS[k]), 0) for face in TRIANGLES
    )
    return title.ljust(80) + struct.pack("<I", len(TRIANGLES)) + records


def stl_text():
    facets = "".join(
        "facet normal 0 0 0\nouter loop\n"
        + "".join("  vertex {} {} {}\n".format(*POINTS[k]) for k in face)
        + "endloop\nendfacet\n"
        for face in TRIANGLES
    )
    return f"solid part\n{facets}endsolid part\n"


def ply_binary(order):
    mark = "<" if order == "binary_little_endian" else ">"
    head = PLY_HEAD.format(order=order, more="", faces=4).encode()
    rows = b"".join(struct.pack(f"{mark}3f", *point) for point in POINTS)
    return head + rows + b"".join(struct.pack(f"{mark}B3i", 3, *face) for face in TRIANGLES)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("plain.off", f"OFF\n4 4 6\n{VERTEX_LINES}{FACE_LINES}"),
        ("counts_behind_the_header.off", f"OFF4 4 0\n{VERTEX_LINES}{FACE_LINES}"),
        ("comments.off", f"# made by\nOFF # here\n4 4 0\n\n{VERTEX_LINES}# faces\n{FACE_LINES}"),
        ("one_line.off", f"OFF 4 4 0 {VERTEX_LINES} {FACE_LINES}".replace("\n", " ")),
        ("windows.off", f"OFF\n4 4 0\n{VERTEX_LINES}{FACE_LINES}".replace("\n", "\r\n")),
        ("face_colours.off", f"OFF\n4 4 0\n{VERTEX_LINES}{FACE_LINES.replace(chr(10), ' 255 0 0' + chr(10))}"),
        ("plain.obj", OBJ_VERTICES + "".join(f"f {a + 1} {b + 1} {c + 1}\n" for a, b, c in TRIANGLES)),
        ("backwards.obj", OBJ_VERTICES + "".join(
            f"f {a - 4 - k} {b - 4 - k} {c - 4 - k}\nv 9 9 9\n" for k, (a, b, c) in enumerate(TRIANGLES))),
        ("normals.obj", OBJ_VERTICES + "vn 0 0 0\n" + "".join(
            f"f {a + 1}//1 {b + 1}//1 {c + 1}//1\n" for a, b, c in TRIANGLES)),
        ("mixed.obj", OBJ_VERTICES + "vt 0 0\nvn 0 0 1\nf 1 2 3\nf 1/1 2/1 4/1\nf 1/1/1 3/1/1 4/1/1\n"
         " f  2//1  3//1 4//1 # x\n"),
        ("continued.obj", OBJ_VERTICES + "f 1 2 \\\n3\nf 1 2 4\nf 1 3 4\nf 2 3 4\n"),
        ("text.ply", PLY_HEAD.format(order="ascii", more="", faces=4) + VERTEX_LINES + FACE_LINES),
        ("little.ply", ply_binary("binary_little_endian")),
        ("big.ply", ply_binary("binary_big_endian")),
        ("binary.stl", stl_bytes()),
        ("binary_that_starts_with_solid.stl", stl_bytes(b"solid part")),
        ("text.stl", stl_text()),
        ("TEXT.STL", stl_text().upper()),
    ],
)  # fmt: skip
def test_every_way_of_writing_it_is_the_same_model(tmp_path, name, data):
    assert triangles(model(tmp_path, name, data)) == EXPECTED


@pytest.mark.parametrize("suffix", ["glb", "obj", "off", "ply", "stl"])
def test_what_another_program_writes_is_read_as_it_was(tmp_path, suffix):
    shape = build("teapot", np.random.default_rng(4))
    trimesh.Trimesh(shape.vertices, shape.faces, process=False).export(tmp_path / f"a.{suffix}")
    read = load_shape(tmp_path / f"a.{suffix}")
    assert len(read.faces) == len(shape.faces)
    np.testing.assert_allclose(read.vertices[read.faces], shape.vertices[shape.faces], atol=2e-5)


def test_polygons_become_triangles_that_cover_them(tmp_path):
    square = "v 0 0 0\nv 2 0 0\nv 2 0 2\nv 0 0 2\nv 1 0 4\n"
    for name, data in (
        ("a.obj", square + "f 1 2 3 4\nf 4 3 5\n"),
        ("b.off", "OFF\n5 2 0\n0 0 0\n2 0 0\n2 0 2\n0 0 2\n1 0 4\n4 0 1 2 3\n3 3 2 4\n"),
        ("c.obj", square + "f 1 2 3 5 4\n"),
    ):
        read = model(tmp_path, name, data)
        corners = read.vertices[read.faces]
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum() / 2
        assert len(read.faces) == 3 and area == pytest.approx(6)


def test_ply_lists_of_several_lengths_and_elements_nobody_knows(tmp_path):
    head = PLY_HEAD.format(order="{order}", more="property double quality\n", faces=2)
    head = head.replace("end_header", "element edge 1\nproperty int a\nproperty list uchar float weights\nend_header")
    polygons = [(0, 1, 2), (0, 1, 2, 3)]
    text = "".join(f"{x} {y} {z} 0.5\n" for x, y, z in POINTS)
    text += "3 0 1 2\n4 0 1 2 3\n7 2 0.5 0.25\n"
    binary = b"".join(struct.pack("<3fd", *point, 0.5) for point in POINTS)
    binary += b"".join(struct.pack(f"<B{len(p)}i", len(p), *p) for p in polygons) + struct.pack(
        "<iB2f", 7, 2, 0.5, 0.25
    )
    one = model(tmp_path, "a.ply", head.format(order="ascii") + text)
    two = model(tmp_path, "b.ply", head.format(order="binary_little_endian").encode() + binary)
    assert triangles(one) == triangles(two) and len(one.faces) == 3


def colors_of(read):
    """Display RGB (F, 3) in bytes."""
    return np.array([np.round(np.array(read.looks[row].material.color) * 255) for row in read.face_look])


def test_colours_of_vertices_and_faces(tmp_path):
    red_lines = "".join(f"{x} {y} {z} 255 0 0\n" for x, y, z in POINTS)
    more = "property uchar red\nproperty uchar green\nproperty uchar blue\n"
    coff_lines = "".join(f"{x} {y} {z} 1.0 0.0 0.0 1.0\n" for x, y, z in POINTS)
    for name, data in (
        ("vertices.ply", PLY_HEAD.format(order="ascii", more=more, faces=4) + red_lines + FACE_LINES),
        ("vertices.off", f"COFF\n4 4 0\n{coff_lines}{FACE_LINES}"),
        ("faces.off", f"OFF\n4 4 0\n{VERTEX_LINES}{FACE_LINES.replace(chr(10), ' 255 0 0' + chr(10))}"),
        ("vertices.obj", "".join(f"v {x} {y} {z} 1 0 0\n" for x, y, z in POINTS) + "f 1 2 3\nf 1 2 4\n"),
    ):
        assert (colors_of(model(tmp_path, name, data)) == [255, 0, 0]).all(), name


def test_an_obj_has_the_materials_of_all_its_libraries(tmp_path):
    (tmp_path / "one.mtl").write_text(
        "# paint\nnewmtl red paint\nKd 0.8 0 0\nKs 1 1 1\nNs 90\n\nnewmtl glass\nKd 0 0.8 0\nd 0.1\n"
    )
    (tmp_path / "two.mtl").write_text("newmtl blue\n\tKd\t0 0 0.8\n")
    read = model(
        tmp_path,
        "a.obj",
        f"{OBJ_VERTICES}mtllib one.mtl\nmtllib two.mtl\nf 1 2 3\nusemtl red paint\nf 1 2 4\nusemtl blue\nf 1 3 4\n"
        "usemtl red paint\nf 2 3 4\n",
    )
    assert colors_of(read).tolist() == [[161, 161, 161], [204, 0, 0], [0, 0, 204], [204, 0, 0]]
    assert read.looks[read.face_look[1]].material.gloss == 90 and not read.notes


def test_a_material_that_cannot_be_had_is_grey_and_told_of(tmp_path):
    read = model(tmp_path, "a.obj", OBJ_VERTICES + "mtllib lost.mtl\nusemtl red\nf 1 2 3\nf 1 2 4\n")
    assert (colors_of(read) == 161).all()
    assert read.notes == ["'lost.mtl' is not in the model's folder", "material 'red' is not to be had: grey"]


@pytest.mark.parametrize(
    "name", ["skin.png", "SKIN.PNG", "textures\\skin.png", "C:\\models\\skin.png", "-s 1 1 1 skin.png"]
)
def test_a_texture_is_found_under_the_names_that_other_computers_give_it(tmp_path, name):
    Image.new("RGB", (4, 2), (10, 200, 30)).save(tmp_path / "skin.png")
    (tmp_path / "a.mtl").write_text(f"newmtl m\nmap_Kd {name}\n")
    read = model(tmp_path, "a.obj", OBJ_VERTICES + "mtllib a.mtl\nvt 0 0\nvt 1 1\nusemtl m\nf 1/1 2/2 3/1\n")
    assert not read.notes and read.looks[read.face_look[0]].texture.shape == (2, 4, 3)


def test_textures_that_cannot_be_used_leave_the_colour_and_a_note(tmp_path):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    big = Image.new("1", (9000, 9000))
    big.save(tmp_path / "huge.png")
    (tmp_path.parent / "outside.png").write_bytes((tmp_path / "huge.png").read_bytes())
    for name, note in (
        ("cut.png", "texture 'cut.png' cannot be read"),
        ("huge.png", "9000 x 9000 pixels, more than 64000000"),
        ("../outside.png", "'../outside.png' is not in the model's folder"),
        ("/etc/hostname", "'/etc/hostname' is not in the model's folder"),
        ("a\0b.png", "cannot be read (embedded null byte)"),
    ):
        (tmp_path / "a.mtl").write_text(f"newmtl m\nKd 0 1 0\nmap_Kd {name}\n")
        read = model(tmp_path, "a.obj", OBJ_VERTICES + "mtllib a.mtl\nvt 0 0\nusemtl m\nf 1/1 2/1 3/1\n")
        assert colors_of(read).tolist() == [[0, 255, 0]] and read.corner_uv is None
        assert len(read.notes) == 1 and note in read.notes[0], read.notes


def test_a_large_texture_is_kept_small(tmp_path):
    Image.new("RGB", (2000, 1000), (1, 2, 3)).save(tmp_path / "skin.jpg")
    (tmp_path / "a.mtl").write_text("newmtl m\nmap_Kd skin.jpg\n")
    read = model(tmp_path, "a.obj", OBJ_VERTICES + "mtllib a.mtl\nvt 0 0\nusemtl m\nf 1/1 2/1 3/1\n")
    assert read.looks[1].texture.shape == (256, 512, 3)


def glb(tmp_path, scene):
    scene.export(tmp_path / "a.glb")
    return model(tmp_path, "a.glb", (tmp_path / "a.glb").read_bytes())


def test_a_glb_puts_its_parts_where_the_scene_has_them(tmp_path):
    scene = trimesh.Scene()
    box = trimesh.creation.box((1, 1, 1))
    scene.add_geometry(box, node_name="low", geom_name="box")
    turned = trimesh.transformations.rotation_matrix(np.pi / 2, [0, 0, 1])
    scene.graph.update(frame_to="middle", frame_from="world", matrix=np.diag([2.0, 1.0, 1.0, 1.0]))
    scene.graph.update(
        frame_to="high", frame_from="middle", matrix=trimesh.transformations.translation_matrix([3, 0, 5]) @ turned,
        geometry="box",
    )  # fmt: skip
    read = glb(tmp_path, scene)
    assert len(read.faces) == 24
    # One cube at the origin; the other moved by (3, 0, 5) and then stretched to twice its width.
    np.testing.assert_allclose(read.vertices.min(axis=0), [-0.5, -0.5, -0.5], atol=1e-6)
    np.testing.assert_allclose(read.vertices.max(axis=0), [7, 0.5, 5.5], atol=1e-6)
    upper = read.vertices[read.vertices[:, 2] > 2]
    np.testing.assert_allclose(np.ptp(upper, axis=0), [2, 1, 1], atol=1e-6)


def test_a_glb_has_several_materials_and_its_textures_inside(tmp_path):
    material = trimesh.visual.material.PBRMaterial
    skin = Image.new("RGB", (8, 8), (200, 100, 50))
    parts = [trimesh.creation.box((1, 1, 1)) for _ in range(4)]
    for k, part in enumerate(parts):
        part.apply_translation([2 * k, 0, 0])
    uv = np.zeros((8, 2))
    parts[0].visual = trimesh.visual.TextureVisuals(uv=uv, material=material(baseColorTexture=skin))
    # Factors are linear light: a quarter of it is half of display white.
    quarter = material(baseColorFactor=[0.25, 1.0, 0.0, 1.0], roughnessFactor=0.1, metallicFactor=1.0)
    parts[1].visual = trimesh.visual.TextureVisuals(material=quarter)
    parts[2].visual.vertex_colors = [0, 0, 255, 255]
    read = glb(tmp_path, trimesh.Scene(parts))
    by_part = (read.vertices[read.faces].mean(axis=1)[:, 0] / 2).round().astype(int)
    looks = [
        {read.looks[row] if read.looks[row].texture is None else "skin" for row in read.face_look[by_part == k]}
        for k in range(4)
    ]
    assert looks[0] == {"skin"}
    texture = next(look.texture for look in read.looks if look.texture is not None)
    assert (texture == [200, 100, 50]).all() and read.corner_uv.shape == (48, 3, 2)
    (metal,), (blue,) = (looks[k] for k in (1, 2))
    assert metal.material.color == pytest.approx((0.5, 1, 0), abs=0.01) and metal.material.reflect > 0.2
    assert blue.material.color == (0, 0, 1)
    # A model that has no colours of its own stays grey.
    assert {tuple(np.round(look.material.color, 2)) for look in looks[3]} == {(0.63, 0.63, 0.63)}


def test_textures_lie_the_right_way_up_and_repeat(tmp_path):
    picture = np.zeros((4, 2, 3), dtype=np.uint8)
    picture[0], picture[3] = [255, 0, 0], [0, 0, 255]  # top and bottom row
    Image.fromarray(picture).save(tmp_path / "skin.png")
    (tmp_path / "a.mtl").write_text("newmtl m\nmap_Kd skin.png\n")
    rows = "v 0 0 0\nv 1 0 0\nv 0 0 1\nmtllib a.mtl\nusemtl m\n"
    for low in (0.0, 5.0, -3.0):
        # The whole face lies in the topmost quarter of the picture, some tiles away.
        uv = "".join(f"vt {u} {low + v}\n" for u, v in ((0.1, 0.9), (0.3, 0.9), (0.1, 0.95)))
        read = model(tmp_path, "a.obj", rows + uv + "f 1/1 2/2 3/3\n")
        skin = finish(read, CANONICAL).skin
        assert (skin.corner_uv[..., 1] > 0.85).all() and (skin.corner_uv[..., 1] < 1).all()
        assert skin.texels.reshape(4, 2, 3)[0].tolist() == [[255, 0, 0]] * 2
