"""The renderer: pictures agree with their annotations and CAD files, and the same arguments give the same bytes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from data_prep import render
from data_prep.rendering.catalog import Catalog, held_out_models, image_counts
from data_prep.rendering.raytrace import Lights, TracedShape, View, render_layer
from data_prep.rendering.scenes import STATUS_FROM, Member, draw_picture
from data_prep.rendering.shapes import CATEGORIES, build
from data_prep.rendering.shapes.materials import TAIL_LIGHT
from data_prep.rendering.shapes.mesh import Builder, Material
from data_prep.rendering.writer import Job, Task, Writer
from llava_pose.annotations import STATUSES
from llava_pose.errors import UserError
from llava_pose.geometry import project
from llava_pose.scene import read_annotations

ROOT = Path(__file__).resolve().parents[2]
SEED, IMAGES, SIZE = 3, 3 * len(CATEGORIES), 224
FIELDS = {
    *("azimuth", "elevation", "theta", "distance", "viewport", "focal", "px", "py", "principal", "cad_index"),
    *("height", "width", "bbox", "class", "object_status", "dense"),
}
RED, GREY = (Material(color, specular=0.0) for color in ((0.9, 0.0, 0.0), (0.5, 0.5, 0.5)))


def run(out, *arguments):
    render.main(["--out", str(out), *map(str, arguments)])
    return out


def tree(folder):
    """Every file below a folder and its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    out = tmp_path_factory.mktemp("render") / "set"
    return run(out, "--images", IMAGES, "--seed", SEED, "--size", SIZE, "--workers", 1)


@pytest.fixture(scope="module")
def tasks():
    counts = image_counts(IMAGES, CATEGORIES, 0.2)
    return [
        Task(category, split, number)
        for category in CATEGORIES
        for split in ("train", "val")
        for number in range(counts[category][split])
    ]


@pytest.fixture(scope="module")
def pictures(tasks):
    """The same pictures drawn in memory, with their silhouettes."""
    writer = Writer(Job(Path("unused"), SEED, SIZE, Catalog(SEED, image_counts(IMAGES, CATEGORIES, 0.2), None)))
    return {task: writer.draw(task)[0] for task in tasks}


def annotations_of(rendered, task):
    return read_annotations(rendered / "annotations" / task.category / f"{task.name}.npz")


def read_off(path):
    words = path.read_text().split()
    vertices, faces = int(words[1]), int(words[2])
    numbers = np.array(words[4:], dtype=float)
    return (
        numbers[: 3 * vertices].reshape(-1, 3),
        numbers[3 * vertices :].reshape(faces, 4)[:, 1:].astype(int),
    )


def drawn_silhouette(rendered, annotation, fine=32):
    """The CAD file of an annotation, projected and filled face by face on a fine grid, read at pixel centres."""
    vertices, faces = read_off(rendered / "CAD" / annotation["class"] / f"{annotation['cad_index']:02d}.off")
    pose = [annotation[name] for name in ("azimuth", "elevation", "theta")]
    principal = [annotation["px"], annotation["py"]]
    pixels = project(vertices, pose, annotation["distance"], annotation["viewport"], principal)
    left, top, right, bottom = (int(edge) for edge in annotation["bbox"])
    left, top = max(left - 2, 0), max(top - 2, 0)
    right, bottom = min(right + 2, annotation["width"]), min(bottom + 2, annotation["height"])
    canvas = Image.new("1", ((right - left) * fine, (bottom - top) * fine))
    draw = ImageDraw.Draw(canvas)
    for face in (pixels - [left, top])[faces] * fine - 0.5:
        draw.polygon([(x, y) for x, y in face.tolist()], fill=1)
    mask = np.zeros((annotation["height"], annotation["width"]), dtype=bool)
    mask[top:bottom, left:right] = np.asarray(canvas)[fine // 2 :: fine, fine // 2 :: fine]
    return mask


def test_the_wireframe_on_disk_covers_the_object_in_every_category(rendered, pictures):
    overlaps = {}
    for task, picture in pictures.items():
        for annotation, mask in zip(annotations_of(rendered, task), picture.silhouettes, strict=True):
            if mask.sum() < 1000:  # of slivers the border pixels are too large a part
                continue
            drawn = drawn_silhouette(rendered, annotation)
            overlap = (drawn & mask).sum() / (drawn | mask).sum()
            overlaps.setdefault(annotation["class"], []).append(overlap)
    assert set(overlaps) == set(CATEGORIES)
    assert min(min(values) for values in overlaps.values()) >= 0.97, overlaps


def test_what_changes_in_the_final_pixels_with_the_object_is_its_visible_silhouette(monkeypatch):
    # A camera without blur, noise and exposure: what it does is tested by itself.
    def plain_camera(rng, canvas):
        return Image.fromarray(np.clip(canvas * 255, 0, 255).astype(np.uint8).transpose(1, 2, 0))

    monkeypatch.setattr("data_prep.rendering.scenes.develop", plain_camera)
    hidden = 0

    def draw(category, seed, brightness):
        shape = build(category, np.random.default_rng(seed))
        shape.materials[:] = Material((brightness,) * 3, specular=0.0).row()
        member = Member(category, 0, TracedShape(shape))
        return draw_picture(np.random.default_rng([seed, 5]), member, lambda rng: member_of("sofa", rng), 400)

    def member_of(category, rng):
        return Member(category, 0, TracedShape(build(category, rng)))

    for seed, category in enumerate(("car", "chair", "teapot", "boat", "sofa", "bus", "camera", "cabinet")):
        dark, bright = (draw(category, seed, value) for value in (0.0, 1.0))
        assert dark.annotations == bright.annotations
        difference = np.asarray(bright.image, dtype=int).sum(axis=2) - np.asarray(dark.image, dtype=int).sum(axis=2)
        changed, visible = difference > 200, bright.visible[0]
        hidden += (bright.silhouettes[0] & ~visible).any()
        # Borders of thin parts, and of what is out of focus in front, fall on either side of the threshold.
        assert (changed & visible).sum() / (changed | visible).sum() > 0.9, category
    assert hidden >= 2


def test_annotations_are_complete_and_in_range(rendered, tasks):
    for task in tasks:
        with Image.open(rendered / "images" / task.category / f"{task.name}.JPEG") as image:
            size = image.size
            assert image.format == "JPEG" and image.mode == "RGB"
        for annotation in annotations_of(rendered, task):
            assert set(annotation) == FIELDS
            assert (annotation["width"], annotation["height"]) == size
            for name in ("azimuth", "elevation", "theta"):
                assert 0 <= annotation[name] < 2 * np.pi
            assert annotation["distance"] > 2 and annotation["viewport"] == 2000
            x1, y1, x2, y2 = annotation["bbox"]
            assert 0 <= x1 < x2 <= size[0] and 0 <= y1 < y2 <= size[1]
            assert annotation["class"] in CATEGORIES and annotation["object_status"] in STATUSES
            assert annotation["dense"] in ("dense_yes", "dense_no")


def test_boxes_are_tight_and_status_follows_the_visible_share(pictures):
    statuses = set()
    for picture in pictures.values():
        for annotation, mask, visible in zip(picture.annotations, picture.silhouettes, picture.visible, strict=True):
            rows, columns = np.nonzero(mask)
            assert annotation["bbox"] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert not (visible & ~mask).any()
            least = dict(STATUS_FROM)[annotation["object_status"]] if annotation["object_status"] != "status_bad" else 0
            # Pixels outside the picture lower the share further, never raise it.
            assert visible.sum() / mask.sum() >= least
            statuses.add(annotation["object_status"])
    assert {"status_good", "status_partially"} <= statuses


def test_the_nearer_object_hides_the_farther(pictures):
    overlapping = 0
    for picture in pictures.values():
        for a, (near, near_mask) in enumerate(zip(picture.annotations, picture.silhouettes, strict=True)):
            for b, (far, far_mask) in enumerate(zip(picture.annotations, picture.silhouettes, strict=True)):
                if near["distance"] < far["distance"]:
                    shared = near_mask & far_mask
                    overlapping += shared.any()
                    assert not (shared & picture.visible[b]).any(), (a, b)
    assert overlapping > 5


def test_poses_spread_as_in_photos(pictures):
    poses = np.array([[a["azimuth"], a["elevation"], a["theta"]] for p in pictures.values() for a in p.annotations])
    elevation, theta = ((poses[:, k] + np.pi) % (2 * np.pi) - np.pi for k in (1, 2))
    quarters = np.histogram((poses[:, 0] + np.pi / 4) % (2 * np.pi), bins=4, range=(0, 2 * np.pi))[0]
    assert quarters.min() > 0 and quarters.argmax() == 0  # most from the front quarter, some from every one
    assert 0 < np.degrees(np.median(elevation)) < 25
    assert np.degrees(elevation).min() >= -20.1 and np.degrees(elevation).max() <= 80.1
    assert (np.abs(np.degrees(theta)) < 8).mean() > 0.7


def test_categories_are_balanced_and_splits_share_no_name_and_no_shape(rendered):
    names = {split: [] for split in ("train", "val")}
    for category in CATEGORIES:
        for split in names:
            lines = (rendered / "lists" / f"{category}_imagenet_{split}.txt").read_text().splitlines()
            assert len(lines) == (2 if split == "train" else 1)
            names[split] += [(category, name) for name in lines]
    assert len(names["train"]) + len(names["val"]) == IMAGES and not set(names["train"]) & set(names["val"])
    shapes = {}
    for split, listed in names.items():
        found = [a for c, n in listed for a in read_annotations(rendered / "annotations" / c / f"{n}.npz")]
        files = {rendered / "CAD" / a["class"] / f"{a['cad_index']:02d}.off" for a in found}
        shapes[split] = {path.read_bytes() for path in files}
        assert len(shapes[split]) == len(files)
    assert shapes["train"] and shapes["val"] and not shapes["train"] & shapes["val"]


def test_output_is_the_same_for_any_number_of_workers_and_after_a_stop(tmp_path):
    arguments = ("--images", 36, "--categories", "chair", "bed", "--size", 64)
    alone = tree(run(tmp_path / "alone", *arguments, "--workers", 1))
    assert tree(run(tmp_path / "two", *arguments, "--workers", 2)) == alone
    # As a kill leaves it: some images missing, one half-written, no lists.
    for path in sorted((tmp_path / "two" / "annotations" / "bed").iterdir())[3:9]:
        path.unlink()
    (tmp_path / "two" / "images" / "bed" / ".x.JPEG.1.partial").write_bytes(b"half")
    shutil.rmtree(tmp_path / "two" / "lists")
    assert tree(run(tmp_path / "two", *arguments, "--workers", 1)) == alone
    other = tree(run(tmp_path / "other", *arguments, "--workers", 1, "--seed", 1))
    assert other.keys() == alone.keys() and other != alone


def test_ctrl_c_leaves_whole_files_only_and_no_lists(tmp_path):
    out = tmp_path / "set"
    command = [sys.executable, "data_prep/render.py", "--out", str(out), "--images", "4000", "--workers", "2"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(out.glob("annotations/*/*.npz"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and b"Traceback" not in errors
    assert not list(out.rglob("*.partial")) and not (out / "lists").exists()
    for path in out.glob("annotations/*/*.npz"):
        assert read_annotations(path)
    for path in out.glob("images/*/*.JPEG"):
        with Image.open(path) as image:
            image.load()


def marked_cube(place):
    """A grey cube with a red plate on the side ``place`` points to."""
    builder = Builder()
    builder.box((0, 0, 0), (1, 1, 1), GREY)
    builder.box(np.array(place) * 0.5, 0.6 * (1 - np.abs(place)) + 0.1 * np.abs(place), RED)
    return builder.build()


def seen_red(shape, azimuth, elevation=0.0, theta=0.0):
    """Red share of the object's pixels, and the mean position (right, up) of those, from the principal point."""
    lights = Lights(*(np.array(v, dtype=np.float32) for v in ((0, -0.6, 0.8), [0.3] * 3, (0, -1, 0), [0.3] * 3)),
                    sky=np.full(3, 0.5, np.float32), ground=np.full(3, 0.3, np.float32))  # fmt: skip
    view = View(np.array([azimuth, elevation, theta]), 25.0, 2000.0, np.array([60.0, 60.0]))
    layer = render_layer(TracedShape(shape), view, lights, 120, 120, False)
    rows, columns = np.nonzero((layer.color[0] > 3 * layer.color[1]) & layer.mask)
    if not len(rows):
        return 0.0, None
    return len(rows) / layer.mask.sum(), (columns.mean() + 0.5 + layer.left - 60, 60 - rows.mean() - 0.5 - layer.top)


@pytest.mark.parametrize(
    ("place", "facing", "away", "front_view"),
    [
        ((0, -1, 0), (0, 0), (np.pi, 0), None),
        ((1, 0, 0), (np.pi / 2, 0), (-np.pi / 2, 0), "right"),
        ((0, 0, 1), (0, 1.2), (0, -1.2), "up"),
    ],
)
def test_each_side_is_seen_from_where_the_convention_says(place, facing, away, front_view):
    shape = marked_cube(place)
    assert seen_red(shape, *facing)[0] > 0.25
    assert seen_red(shape, *away)[0] == 0
    if front_view:
        _, (right, up) = seen_red(shape, 0.3, 0.2)
        assert (right if front_view == "right" else up) > 15


def test_theta_turns_the_picture_counter_clockwise():
    _, (right, up) = seen_red(marked_cube((0, 0, 1)), 0.0, 0.3, np.pi / 2)
    assert right < -15 and abs(up) < 10


@pytest.mark.parametrize("category", ["car", "bus", "train", "motorbike", "tractor"])
def test_red_lights_show_from_behind_and_not_from_the_front(category):
    for seed in range(5):
        shape = build(category, np.random.default_rng(seed))
        lamps = (shape.materials == np.float32(TAIL_LIGHT.row())).all(axis=1)
        shape.materials[~lamps] = GREY.row()
        assert seen_red(shape, np.pi)[0] > 0.004
        assert seen_red(shape, 0.0)[0] == 0


def test_counts_and_held_out_meshes():
    assert image_counts(7, ["a", "b", "c"], 0.2) == {
        "a": {"train": 2, "val": 1}, "b": {"train": 1, "val": 1}, "c": {"train": 1, "val": 1},
    }  # fmt: skip
    assert image_counts(1, ["a", "b"], 0.5) == {"a": {"train": 1, "val": 0}, "b": {"train": 0, "val": 0}}
    assert [held_out_models(n, {"train": 8, "val": 2}) for n in (1, 2, 10, 20)] == [0, 1, 2, 4]
    assert held_out_models(5, {"train": 8, "val": 0}) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "0"], "--images 0: must be between 1"),
        (["--images", "-3"], "--images -3"),
        (["--images", "many"], "--images"),
        (["--images", "2", "--workers", "0"], "--workers 0"),
        (["--images", "2", "--val-fraction", "1"], "--val-fraction"),
        (["--images", "2", "--front", "car=+x"], "--front car=+x: says how --meshes lie, and there are none"),
        (["--images", "2", "--categories", "cra"], "unknown name 'cra'; did you mean car"),
        (["--images", "2", "--categories", "umbrella"], "--categories umbrella: not among"),
        (["--images", "2", "--meshes", "{tmp}/nowhere"], "nowhere: no such folder"),
        (["--images", "2", "--meshes", "{tmp}/empty"], "empty: no {category}/"),
        (["--images", "2", "--meshes", "{tmp}/unknown"], "unknown/gizmo: category: unknown name 'gizmo'"),
        (
            ["--images", "2", "--meshes", "{tmp}/broken"],
            "broken/car/a.off: line 2: says 3 vertices, but the file ends after 1",
        ),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_written(tmp_path, arguments, message):
    (tmp_path / "empty" / "car").mkdir(parents=True)
    for name, text in (("unknown/gizmo", "OFF"), ("broken/car", "OFF\n3 1 0\n0 0 0\n")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.off").write_text(text)
    with pytest.raises(UserError) as caught:
        run(tmp_path / "out", *(argument.replace("{tmp}", str(tmp_path)) for argument in arguments))
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_foreign_or_different_folder_is_left_alone(tmp_path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty and not begun by this command"):
        run(tmp_path / "foreign", "--images", 2)
    assert tree(tmp_path / "foreign") == {"thesis.txt": b"mine"}
    run(tmp_path / "set", "--images", 2, "--categories", "cup", "--size", 64, "--workers", 1)
    before = tree(tmp_path / "set")
    with pytest.raises(UserError, match="begun with seed 0, not 1"):
        run(tmp_path / "set", "--images", 2, "--categories", "cup", "--size", 64, "--seed", 1)
    assert tree(tmp_path / "set") == before
    with pytest.raises(UserError, match="not a folder"):
        run(tmp_path / "foreign" / "thesis.txt", "--images", 2)


def test_the_command_exits_with_two_and_one_line(tmp_path):
    command = [sys.executable, "data_prep/render.py", "--out", str(tmp_path / "out"), "--images", "0"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 2 and finished.stdout == ""
    assert finished.stderr.splitlines() == ["error: --images 0: must be between 1 and 10000000"]
