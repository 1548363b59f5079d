"""Axes of the users' models: what can be said, and that a turned model told so renders the same picture."""

import itertools

import numpy as np
import pytest

from data_prep import render
from data_prep.rendering.axes import AxesTable, parse_axes, read_axes
from data_prep.rendering.shapes import build
from data_prep.rendering.shapes.mesh import off_text
from llava_pose.errors import UserError

VECTORS = {"x": (1, 0, 0), "y": (0, 1, 0), "z": (0, 0, 1)}


def vector(text):
    return np.array(VECTORS[text[1]]) * (-1 if text[0] == "-" else 1)


ALL = [
    (front, up) for front, up in itertools.product([s + a for s in "+-" for a in "xyz"], repeat=2) if front[1] != up[1]
]


@pytest.mark.parametrize(("front", "up"), ALL)
def test_front_and_up_come_to_lie_where_the_convention_has_them(front, up):
    """Independently of how it is done: front to -y, up to z, and no mirror image."""
    axes = parse_axes(f"{front},up={up}", "--front")
    turned = axes.turn(np.array([vector(front), vector(up), np.cross(vector(up), vector(front))], dtype=float))
    np.testing.assert_array_equal(turned, [[0, -1, 0], [0, 0, 1], [1, 0, 0]])


def test_the_short_forms():
    assert parse_axes("x", "") == parse_axes("+x,up=z", "") == parse_axes("up=+Z, front=X", "")
    assert parse_axes("up=y,front=+z", "").up == (0, 1, 0)
    assert parse_axes("-y", "") == AxesTable().of("car", render.Path("a.obj"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q", "--front car: 'q': front: 'q' is no axis (x, -y, +z, ...)"),
        ("", "'' is no axis"),
        ("+z", "front +z and up +z lie along one axis"),
        ("x,up=-x", "front x and up -x lie along one axis"),
        ("x,down=z", "'down' is neither front nor up"),
        ("y,up=zz", "up: 'zz' is no axis"),
    ],
)
def test_what_is_no_pair_of_axes_is_refused(text, message):
    with pytest.raises(UserError) as caught:
        parse_axes(text, "--front car")
    assert message in str(caught.value)


def meshes(tmp_path, *names):
    found = {}
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(off_text(build("car", np.random.default_rng(len(found)))))
        found.setdefault(path.parent.name, []).append(path)
    return found


def test_the_closer_word_counts_and_the_command_line_before_the_file(tmp_path):
    found = meshes(tmp_path, "car/a.off", "car/b.off", "chair/c.off", "chair/d.glb", "bus/e.glb")
    (tmp_path / "axes.yaml").write_text("car: +x\n'*.glb': '+z,up=y'\nchair: -x\n'Car/b.off': y\n", encoding="utf-8")
    table = read_axes(tmp_path, ["chair=-z,up=y"], found)
    said = {f"{category}/{p.name}": table.of(category, p) for category, paths in found.items() for p in paths}
    assert said == {
        "car/a.off": parse_axes("x", ""),
        "car/b.off": parse_axes("y", ""),
        "chair/c.off": parse_axes("-z,up=y", ""),
        "chair/d.glb": parse_axes("-z,up=y", ""),
        "bus/e.glb": parse_axes("z,up=y", ""),
    }


@pytest.mark.parametrize(
    ("option", "text", "message"),
    [
        ("car", "", "--front car: write it as CATEGORY=AXES"),
        ("cra=x", "", "--front: category: unknown name 'cra'; did you mean car"),
        ("bus=x", "", "--front: bus: no such category among the models"),
        ("car/z.off=x", "", "--front: car/z.off: no such file among the models"),
        ("*.stl=x", "", "--front: *.stl: no such file among the models"),
        ("car=w", "", "--front car: 'w': front: 'w' is no axis"),
        ("car=x", "- car\n", "axes.yaml: not a mapping of categories to axes"),
        ("car=x", "car: 3\n", "axes.yaml: car: 3 are no axes"),
        ("car=x", "car: {", "axes.yaml: cannot be read as YAML"),
        ("car=x", "boat: x\n", "axes.yaml: boat: no such category among the models"),
        ("car=x", "car: z\n", "axes.yaml: car: 'z': front z and up +z lie along one axis"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path, option, text, message):
    found = meshes(tmp_path, "car/a.off")
    if text:
        (tmp_path / "axes.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        read_axes(tmp_path, [option], found)
    assert message in str(caught.value)


def written(out, *arguments):
    render.main(["--out", str(out), "--images", "6", "--size", "64", "--workers", "1", *map(str, arguments)])
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != render.RECORD
    }


@pytest.mark.parametrize(("front", "up"), [("+x", "+z"), ("-z", "+y"), ("+z", "+y"), ("-x", "-y")])
def test_a_turned_model_that_says_so_renders_the_same_bytes(tmp_path, front, up):
    left = np.cross(vector(up), vector(front))
    back = np.stack([left, -vector(front), vector(up)])  # rows: where canonical x, y and z lie in the file
    for name in ("straight", "turned"):
        (tmp_path / name / "chair").mkdir(parents=True)
        for k in range(2):
            shape = build("chair", np.random.default_rng(k))
            vertices = shape.vertices if name == "straight" else shape.vertices @ back
            rows = "".join("v {!r} {!r} {!r}\n".format(*row) for row in vertices.tolist())
            cells = "".join("f {} {} {}\n".format(*face) for face in (shape.faces + 1).tolist())
            (tmp_path / name / "chair" / f"{k}.obj").write_text(rows + cells)
    straight = written(tmp_path / "one", "--meshes", tmp_path / "straight")
    assert written(tmp_path / "two", "--meshes", tmp_path / "turned", "--front", f"chair={front},up={up}") == straight
    assert written(tmp_path / "three", "--meshes", tmp_path / "turned") != straight
    (tmp_path / "turned" / "axes.yaml").write_text(f"chair: '{front},up={up}'\n")
    assert written(tmp_path / "four", "--meshes", tmp_path / "turned") == straight
