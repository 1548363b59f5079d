"""Models out of furniture archives: which are taken, how they lie, and what bad archives are told."""

import zipfile

import numpy as np
import pytest
import yaml

from data_prep import render, sweethome3d
from data_prep.rendering.axes import parse_axes, read_axes
from data_prep.rendering.meshfiles import find_meshes, load_shape
from data_prep.rendering.shapes import CATEGORIES
from llava_pose.errors import UserError

# A wedge as wide as x 2, as high as y 1 and as deep as z 4, its upper edge at z = 0; one face is an edge alone.
WEDGE = b"""mtllib Old.MTL
v 0 0 0\nv 2 0 0\nv 0 0 4\nv 2 0 4\nv 0 1 0\nv 2 1 0
usemtl blue
f 1 2 4 3\nf 1 5 6 2\nf 3 4 6 5\nf 1 3 5\nf 2 6 4
f 1 2
"""
RED = b"newmtl blue\nKd 1 0 0\n"
BLUE = b"newmtl blue\nKd 0 0 1\nmap_Kd C:\\My Work\\Gone.jpg\n"
CATALOGUE = b"id#1=a\nmodel#1=/one/stool/stool.obj\ncreator#1=Ann\n"
TABLE = {
    "A.sh3f": {"licence": "CC0-1.0", "models": {"chair": {"one/stool/stool.obj": "+z,up=y"}}},
    "B.sh3f": {
        "licence": "CC-BY-3.0",
        "models": {"chair": {"two/stool/stool.obj": "-z,up=y"}, "car": {"two/car/car.obj": "+x,up=y"}},
    },
}


def write_zip(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.fixture
def archives(tmp_path, monkeypatch):
    """Two archives with models of the same name but other materials, and a table of them."""
    folder = tmp_path / "archives"
    folder.mkdir()
    ones = {"one/stool/stool.obj": WEDGE, "one/stool/old.mtl": BLUE, sweethome3d.CATALOGUE: CATALOGUE}
    twos = {f"two/{name}/{name}.obj": WEDGE for name in ("stool", "car")}
    twos |= {f"two/{name}/old.mtl": RED for name in ("stool", "car")}
    write_zip(folder / "A.sh3f", ones | {"one/other/other.obj": WEDGE})
    write_zip(folder / "B.sh3f", twos)
    table = tmp_path / "table.yaml"
    table.write_text(yaml.safe_dump(TABLE))
    monkeypatch.setattr(sweethome3d, "TABLE", table)
    return folder


def unpack(archives, out, *options):
    sweethome3d.main(["--archives", str(archives), "--out", str(out), *options])
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


def test_every_model_of_the_table_has_a_category_of_ours_and_axes():
    models = sweethome3d.read_table(sweethome3d.TABLE, "all")
    assert len({(model.category, model.stem) for model in models}) == len(models) > 150
    for model in models:
        assert model.category in CATEGORIES
        parse_axes(model.axes, model.path)
        assert ".." not in model.path and not model.path.startswith("/")
    cc0, by = ({m.path for m in sweethome3d.read_table(sweethome3d.TABLE, name)} for name in ("cc0", "cc-by"))
    assert cc0 and by and not cc0 & by and len(cc0 | by) == len(models)


def test_models_lie_in_canonical_pose_with_materials_of_their_own(archives, tmp_path, capsys):
    out = tmp_path / "meshes"
    unpack(archives, out)
    meshes = find_meshes(out)
    table = read_axes(out, [], meshes)
    for category, name, front, color in (
        ("chair", "one-stool.obj", (2, 4, 1), (0, 0, 1)),
        ("chair", "two-stool.obj", (2, 4, 1), (1, 0, 0)),
        ("car", "two-car.obj", (4, 2, 1), (1, 0, 0)),
    ):
        path = out / category / name
        shape = load_shape(path, table.of(category, path))
        np.testing.assert_allclose(np.ptp(shape.vertices, axis=0), np.array(front) / np.sqrt(21), atol=2e-5)
        np.testing.assert_allclose(shape.materials[shape.face_material[0], :3], color, atol=0.01)
        ridge = shape.vertices[shape.vertices[:, 2] > 0, 1]
        if category == "chair":  # the ridge lies at z = 0 of the file: behind where +z is the front, before where -z is
            assert (ridge > 0).all() == (name == "one-stool.obj")
    assert "Gone.jpg' is not in the archive" in capsys.readouterr().err


def test_a_licence_chooses_archives_and_authors_are_named(archives, tmp_path):
    (archives / "B.sh3f").unlink()
    files = unpack(archives, tmp_path / "cc0", "--licence", "cc0")
    assert files == ["SOURCES.txt", "axes.yaml", "chair/one-stool.mtl", "chair/one-stool.obj"]
    text = (tmp_path / "cc0" / "SOURCES.txt").read_text()
    assert text == "chair/one-stool.obj: one/stool/stool.obj of A.sh3f, by Ann, CC0-1.0\n"


def test_names_in_an_archive_lead_nowhere_else(archives, tmp_path):
    secret = b"newmtl blue\nKd 1 1 1\n"
    (tmp_path / "secret.mtl").write_bytes(secret)
    mesh = WEDGE.replace(b"Old.MTL", b"../../../../secret.mtl")
    textured = b"newmtl blue\nmap_Kd ../../../../../outside.jpg\n"
    write_zip(
        archives / "A.sh3f",
        {
            "one/stool/stool.obj": mesh,
            "one/stool/secret.mtl": textured,
            "one/stool/outside.jpg": b"within",
            "../../../outside.jpg": b"without",
        },
    )
    out = tmp_path / "deep" / "meshes"
    files = unpack(archives, out, "--licence", "cc0")
    assert "chair/one-stool-outside.jpg" in files
    assert (out / "chair" / "one-stool-outside.jpg").read_bytes() == b"within"
    assert not list(tmp_path.rglob("outside.jpg"))


def test_a_bad_archive_is_one_line_and_leaves_nothing(archives, tmp_path, monkeypatch):
    out = tmp_path / "meshes"

    def refused(message):
        with pytest.raises(UserError, match=message):
            unpack(archives, out)
        assert not [path for path in tmp_path.iterdir() if "meshes" in path.name]

    good = (archives / "B.sh3f").read_bytes()
    at = good.index(b"two/stool/stool.obj") + 40
    (archives / "B.sh3f").write_bytes(good[:at] + bytes(32) + good[at + 32 :])
    refused(r"B\.sh3f: two/stool/stool\.obj: cannot be unpacked")
    (archives / "B.sh3f").write_bytes(good[:100])
    refused(r"B\.sh3f: not a zip archive")
    write_zip(archives / "B.sh3f", {"two/stool/stool.obj": WEDGE})
    refused(r"B\.sh3f: two/car/car\.obj: not in the archive")
    (archives / "B.sh3f").unlink()
    refused(r"B\.sh3f: cannot read: No such file")
    monkeypatch.setattr(sweethome3d, "MAX_BYTES", 50)
    refused(r"A\.sh3f: .*: unpacks to \d+ bytes, more than the 50 allowed")


def test_a_folder_with_something_in_it_is_left_alone(archives, tmp_path):
    out = tmp_path / "meshes"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not a new or empty folder"):
        unpack(archives, out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_some_of_the_categories_can_be_rendered(archives, tmp_path):
    """axes.yaml speaks of models that are then left aside."""
    unpack(archives, tmp_path / "meshes")
    options = ["--meshes", str(tmp_path / "meshes"), "--categories", "car", "--images", "1", "--size", "32"]
    render.main(["--out", str(tmp_path / "rendered"), *options, "--workers", "1"])
    assert [path.name for path in (tmp_path / "rendered" / "CAD").iterdir()] == ["car"]
