"""From StanfordCars3D's and CompCars3D's pickles to Parquet: their frame turned into ours, every mistake named, and
nothing run that a pickle holds."""

import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import cars3d
from llava_pose import scene
from llava_pose.errors import UserError
from llava_pose.geometry import camera_center, project
from llava_pose.scene import PosedImage

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT = 600, 400  # at a width of 300 its height is a whole number, so that nothing is rounded
MODEL = "f2a990659efa05c5452d05118c2bf489"
# A car of ShapeNetCore v1: y up, facing +x, and mirrored, so that its own left is +z. A mast stands over its own front
# left, a box hangs from its rear: no two sides look alike.
LEFT, RIGHT, TOP = 0.19, -0.19, 0.15
BODY = np.array([(x, y, z) for x in (-0.45, 0.45) for y in (-TOP, TOP) for z in (LEFT, RIGHT)])
MAST, TRUNK = np.array([[0.4, 0.3, 0.15]]), np.array([[-0.5, 0.0, -0.05], [-0.5, 0.1, 0.02]])
CAR = np.concatenate([BODY, MAST, TRUNK])
ANNOTATION = {
    "azimuth": 1.0414,
    "elevation": 0.0673,
    "theta": -0.0406,
    "distance": 1.1663,
    "u": 20.0,
    "v": -7.0,
    "f": 346.41,
    "model_id": MODEL,
}


def annotation(**fields):
    return {name: value for name, value in {**ANNOTATION, **fields}.items() if value is not None}


def write_pickle(path, cars, protocol=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(cars, protocol=protocol))


def write_image(path, width=WIDTH, height=HEIGHT):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 60)).save(path)


def small_release(root, train, val=None, protocol=2, cad=True):
    val = val or {"00009.jpg": annotation(azimuth=4.3)}
    for split, cars in (("train", train), ("test", val)):
        write_pickle(root / f"Anno3D/StanfordCars/{split}_anno.pkl", cars, protocol)
        for name in cars:
            write_image(root / f"Image/StanfordCars/cars_{split}/{name}")
    (root / "CAD").mkdir()
    (root / "CAD/StanfordCars3D.txt").write_text(f"other\n{MODEL}\n{MODEL}\n")
    if cad:
        (root / f"CAD/02958343/{MODEL}").mkdir(parents=True)
        lines = ["mtllib model.mtl", *(f"v {x} {y} {z}" for x, y, z in CAR), "vn 1 0 0", "f 1/1/1 2/2/1 3/3/1"]
        (root / f"CAD/02958343/{MODEL}/model.obj").write_text("\n".join(lines))
    return root


def convert(root, out, *options):
    cars3d.main(["--root", str(root), "--out", str(out), "--workers", "1", *options])


def rows_of(out, split):
    return [PosedImage.from_row(row) for row in scene.load_split(out, split)]


def published_pixels(points, car, width=WIDTH, height=HEIGHT):
    """Pixels of a model's points in the stored image, by the authors' description.

    The model turns about y by minus the azimuth, about x by the elevation, about z by theta, and moves by −d along z;
    then pinhole division by the signed depth, at a width of 300, offsets u and v from the middle of the image.
    """
    a, e, t = (car[name] for name in ("azimuth", "elevation", "theta"))
    about_y = np.array([[math.cos(a), 0, -math.sin(a)], [0, 1, 0], [math.sin(a), 0, math.cos(a)]])
    about_x = np.array([[1, 0, 0], [0, math.cos(e), -math.sin(e)], [0, math.sin(e), math.cos(e)]])
    about_z = np.array([[math.cos(t), -math.sin(t), 0], [math.sin(t), math.cos(t), 0], [0, 0, 1]])
    moved = points @ (about_z @ about_x @ about_y).T - [0, 0, car["distance"]]
    seen_height = int(height * 300 / width)
    seen = car["f"] * moved[:, :2] / moved[:, 2:] + [car["u"] + 150, car["v"] + seen_height / 2]
    return seen * [width / 300, height / seen_height]


def our_pixels(item):
    return project(cars3d.to_our_frame(CAR), item.pose, item.distance, item.viewport, (item.px, item.py))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_cad_model_lands_on_the_pixels_of_the_authors_projection(tmp_path, protocol):
    random = np.random.default_rng(protocol)
    cars = {
        f"{index:05d}.jpg": annotation(
            azimuth=random.uniform(-0.1, 2 * math.pi),
            elevation=random.uniform(-0.3, 1.2),
            theta=random.uniform(-0.3, 0.3),
            distance=random.uniform(0.9, 9),
            u=random.uniform(-50, 50),
            v=random.uniform(-30, 30),
            f=random.uniform(250, 3000),
        )
        for index in range(12)
    }
    convert(small_release(tmp_path / "cars", cars, protocol=protocol), tmp_path / "out", "--crop", "scene")
    rows = rows_of(tmp_path / "out", "train")
    assert [row.image_id for row in rows] == [f"train/{index:05d}" for index in range(12)]
    for row, car in zip(rows, cars.values(), strict=True):
        expected = published_pixels(CAR, car)
        np.testing.assert_allclose(our_pixels(row.objects[0]), expected, atol=1e-6)
        low, high = expected.min(axis=0), expected.max(axis=0)
        box = np.clip([*low, *high], 0, [WIDTH, HEIGHT] * 2)
        np.testing.assert_allclose(row.objects[0].bbox, box, atol=1e-6)


@pytest.mark.parametrize(("width", "height"), [(500, 333), (1024, 768), (300, 225), (259, 194)])
def test_rounding_the_height_moves_a_pixel_by_less_than_one_of_what_the_annotators_saw(tmp_path, width, height):
    root = small_release(tmp_path / "cars", {"00001.jpg": annotation()})
    write_image(root / "Image/StanfordCars/cars_train/00001.jpg", width, height)
    convert(root, tmp_path / "out", "--crop", "scene")
    [row] = rows_of(tmp_path / "out", "train")
    item = row.objects[0]
    expected = published_pixels(CAR, ANNOTATION, width, height)
    assert np.abs(our_pixels(item) - expected).max() < width / 300
    origin = published_pixels(np.zeros((1, 3)), ANNOTATION, width, height)
    np.testing.assert_allclose((item.px, item.py), origin[0], atol=1e-9)


def facing(point):
    """Which side of the car the camera at this point of our frame is beside, in front of or behind."""
    x, y, _ = point
    return {"front": y < -0.45, "back": y > 0.45, "left": x > 0.19, "right": x < -0.19}


@pytest.mark.parametrize("azimuth", [0.0, 0.5, 1.0, 1.5, 2.1, 2.6, 3.2, 4.0, 4.7, 5.4, 6.0])
def test_the_side_that_the_pose_says_is_the_one_the_picture_shows(azimuth):
    car = annotation(azimuth=azimuth, theta=0.0, elevation=0.1, distance=3.0)
    pose = np.array(cars3d.to_our_pose(car["azimuth"], car["elevation"], car["theta"]))
    seen = facing(camera_center(pose, 3.0))
    # A face of the body is seen where its corners, in order around it, keep their sense in the picture. Mirrored as the
    # model is, what is its own left to a driver is +z.
    corners = {
        "front": [(0.45, -1, -1), (0.45, -1, 1), (0.45, 1, 1)],
        "back": [(-0.45, -1, 1), (-0.45, -1, -1), (-0.45, 1, -1)],
        "left": [(1, -1, LEFT), (-1, -1, LEFT), (-1, 1, LEFT)],
        "right": [(-1, -1, RIGHT), (1, -1, RIGHT), (1, 1, RIGHT)],
    }
    for side, corner in corners.items():
        scale = [1, TOP, LEFT] if side in ("front", "back") else [0.45, TOP, 1]
        first, second, third = published_pixels(np.array(corner) * scale, car)
        turn = np.cross([*(second - first), 0], [*(third - second), 0])[2]
        assert (turn < 0) == seen[side], side
    assert camera_center(pose, 3.0)[2] > 0 and cars3d.to_our_frame([0, 1, 0]).tolist() == [0, 0, 1]


def test_our_frame_is_the_models_turned_and_mirrored():
    frame = cars3d.to_our_frame(np.eye(3)).T
    assert np.linalg.det(frame) == -1
    assert cars3d.to_our_frame([1.0, 0, 0]).tolist() == [0, -1, 0]  # its front


def test_the_front_view_and_the_turns_to_either_side():
    assert cars3d.to_our_pose(math.pi / 2, 0.1, 0.0) == (0.0, 0.1, 0.0)
    assert cars3d.to_our_pose(0.0, 0.1, 0.0)[0] == math.pi / 2
    assert cars3d.to_our_pose(math.pi, 0.1, 0.0)[0] == pytest.approx(3 * math.pi / 2)


def test_compcars_names_with_folders_and_the_second_version_are_read(tmp_path, capsys):
    root = tmp_path / "cars"
    names = {"train": "78/2/2012/948f32b124cf3d.jpg", "test": "122/587/2012/cbfb57e2cbc22b.jpg"}
    for split, name in names.items():
        write_pickle(root / f"Anno3D/CompCars/{split}_anno_v2.pkl", {name: annotation()}, protocol=0)
        write_image(root / f"Image/CompCars/image/{name}")
    convert(root, tmp_path / "out", "--version", "2", "--crop", "scene")
    [row] = rows_of(tmp_path / "out", "train")
    assert row.image_id == "train/78/2/2012/948f32b124cf3d"
    # No CAD here: the box is the whole image, and there is no list to number models by.
    assert row.objects[0].bbox == (0, 0, WIDTH, HEIGHT) and row.objects[0].cad_index == -1
    assert [item.image_id for item in rows_of(tmp_path / "out", "val")] == ["val/122/587/2012/cbfb57e2cbc22b"]


def test_an_object_crop_shows_a_unit_car_as_large_as_imagenet3d_would_and_keeps_the_models_number(tmp_path):
    convert(small_release(tmp_path / "cars", {"00001.jpg": annotation()}), tmp_path / "out")
    item = rows_of(tmp_path / "out", "train")[0].objects[0]
    assert item.viewport / item.distance == pytest.approx(2000 / 4, rel=0.02)
    assert (item.category, item.cad_index) == ("car", 2)


class Malice:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_malicious_pickle_is_refused_and_does_nothing(tmp_path, protocol):
    root = small_release(tmp_path / "cars", {"00001.jpg": annotation()})
    path = root / "Anno3D/StanfordCars/train_anno.pkl"
    write_pickle(path, {"00001.jpg": annotation(), "00002.jpg": Malice(tmp_path / "ran")}, protocol)
    result = subprocess.run(
        [sys.executable, "data_prep/cars3d.py", "--root", root, "--out", tmp_path / "out"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    refusal = "refused, the file holds more than plain data: posix.mkdir"
    assert result.stderr == f"error: {path}: {refusal}\n"
    assert not (tmp_path / "ran").exists() and not (tmp_path / "out").exists()


def whole(change):
    return lambda root: change(root / "Anno3D/StanfordCars/train_anno.pkl")


MISTAKES = {
    "azimuth missing": (annotation(azimuth=None), "00001.jpg.azimuth: field is missing"),
    "u NaN": (annotation(u=math.nan), "00001.jpg.u: expected a finite number, found nan"),
    "theta as text": (annotation(theta="0.1"), "00001.jpg.theta: expected a finite number, found '0.1'"),
    "degrees": (annotation(azimuth=90.0), "00001.jpg.azimuth: expected radians, found 90.0"),
    "no distance": (annotation(distance=0.0), "00001.jpg.distance: expected a number above 0, found 0.0"),
    "inside": (annotation(distance=0.3), "00001.jpg.distance: the camera is inside the CAD model, found 0.3"),
    "focal length": (annotation(f=-3.0), "00001.jpg.f: expected a number above 0, found -3.0"),
    "model no id": (
        annotation(model_id="../../secret"),
        "00001.jpg.model_id: expected the id of a model, found '../../secret'",
    ),
    "model missing": (
        annotation(model_id="abc"),
        "CAD/02958343/abc/model.obj: CAD model is missing (--boxes image does",
    ),
    "no dict": ([1.0, 2.0], "00001.jpg.annotation: expected a dict, found [1.0, 2.0]"),
    "car outside": (annotation(u=5000.0), "00001.jpg.bbox: "),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_field_is_named_and_leaves_nothing_behind(tmp_path, mistake):
    car, message = MISTAKES[mistake]
    root = small_release(tmp_path / "cars", {"00001.jpg": car})
    with pytest.raises(UserError) as error:
        convert(root, tmp_path / "out")
    assert str(error.value).startswith(f"{root}/Anno3D/StanfordCars/train_anno.pkl: ") and message in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["cars"]


FILES = {
    "torn": (whole(lambda path: path.write_bytes(path.read_bytes()[:-30])), "train_anno.pkl: cannot be read"),
    "missing": (whole(lambda path: path.unlink()), "train_anno.pkl: cannot read: No such file"),
    "a list": (whole(lambda path: write_pickle(path, [1])), "expected annotations by image name, found [1]"),
    "numbers": (whole(lambda path: write_pickle(path, {7: annotation()})), "expected annotations by image name"),
    "way out": (
        whole(lambda path: write_pickle(path, {"../../x.jpg": annotation()})),
        "'../../x.jpg' is not the name of a .jpg file",
    ),
    "image": (lambda root: (root / "Image/StanfordCars/cars_train/00001.jpg").unlink(), "00001.jpg: image is missing"),
    "odd model": (
        lambda root: (root / f"CAD/02958343/{MODEL}/model.obj").write_text("v 1 2 x\n"),
        "model.obj: a vertex that is not three numbers",
    ),
    "empty model": (
        lambda root: (root / f"CAD/02958343/{MODEL}/model.obj").write_text("vn 1 2 3\n"),
        "model.obj: no vertices",
    ),
    "two suites": (lambda root: (root / "Anno3D/CompCars").mkdir(), "found StanfordCars and CompCars"),
    "no suite": (lambda root: (root / "Anno3D").rename(root / "anno"), "found neither"),
}


@pytest.mark.parametrize("mistake", FILES)
def test_a_wrong_file_is_named_and_leaves_nothing_behind(tmp_path, mistake):
    spoil, message = FILES[mistake]
    root = small_release(tmp_path / "cars", {"00001.jpg": annotation()})
    spoil(root)
    with pytest.raises(UserError) as error:
        convert(root, tmp_path / "out")
    assert message in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["cars"]


def test_a_missing_model_is_skipped_and_counted_or_done_without_on_request(tmp_path, capsys):
    root = small_release(tmp_path / "cars", {"00001.jpg": annotation(), "00002.jpg": annotation(model_id="abc")})
    convert(root, tmp_path / "lenient", "--on-error", "skip")
    assert "train: left out: model_id in error: 1" in capsys.readouterr().out
    assert len(rows_of(tmp_path / "lenient", "train")) == 1
    convert(root, tmp_path / "image", "--boxes", "image")
    assert len(rows_of(tmp_path / "image", "train")) == 2


def test_a_name_that_leads_out_is_skipped_and_told_on_request(tmp_path, capsys):
    root = small_release(tmp_path / "cars", {"00001.jpg": annotation()})
    path = root / "Anno3D/StanfordCars/train_anno.pkl"
    write_pickle(path, {"00001.jpg": annotation(), "../x.jpg": annotation()})
    convert(root, tmp_path / "out", "--on-error", "skip")
    assert f"{path}: '../x.jpg' is not the name of a .jpg file" in capsys.readouterr().out
    assert [row.image_id for row in rows_of(tmp_path / "out", "train")] == ["train/00001"]
