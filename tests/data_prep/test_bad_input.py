"""Bad input to a conversion: named file by file in strict mode; left out, counted and listed in lenient mode."""

import io
import json
import math
import shutil

import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image

from llava_pose import taxonomy
from llava_pose.errors import UserError
from tests.small_release import HEIGHT, WIDTH, add_image, annotation, convert, rows_of, small_release, write_npz

SKIP = ("--size", "32", "--on-error", "skip")


@pytest.fixture
def root(tmp_path):
    return small_release(tmp_path / "release")


def jpeg(image, **options):
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def png(image, **options):
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


PICTURE = Image.new("RGB", (WIDTH, HEIGHT), (200, 90, 30))
BAD_IMAGES = {
    "truncated": (jpeg(PICTURE)[:400], "not a readable image"),
    "text": (b"no image", "not a readable image: of no kind that is known"),
    "empty": (b"", "not a readable image"),
    "animated": (png(PICTURE, save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))]), "animated image of 2"),
    "bomb": (png(Image.new("1", (10_000, 10_000))), "image of 10000x10000 pixels, more than the 80,000,000 allowed"),
}
GOOD_IMAGES = {
    "CMYK": jpeg(PICTURE.convert("CMYK"), quality=95),
    "grey": jpeg(PICTURE.convert("L"), quality=95),
    "palette": png(PICTURE.convert("P")),
    "alpha": png(PICTURE.convert("RGBA")),
    "16 bits": png(Image.fromarray(np.asarray(PICTURE.convert("L")).astype(np.uint16) * 257)),
    "EXIF": jpeg(PICTURE, quality=95, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
}


@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_a_bad_image_is_named_or_left_out(tmp_path, capsys, root, kind):
    content, message = BAD_IMAGES[kind]
    (root / "images/car/n01.JPEG").write_bytes(content)
    with pytest.raises(UserError, match=rf"car/n01\.JPEG: {message}"):
        convert(root, tmp_path / "strict", "--size", "32")
    convert(root, tmp_path / "out", *SKIP)
    printed = capsys.readouterr().out
    assert f"train: in error: {root}/images/car/n01.JPEG: {message}" in printed
    assert "train: left out: image in error: 1\n" in printed
    assert [row.image_id for row in rows_of(tmp_path / "out", "train")] == ["babby_buggy/n03"]


@pytest.mark.parametrize("kind", GOOD_IMAGES)
@pytest.mark.parametrize("crop", ["scene", "box"])
def test_every_kind_of_still_image_becomes_8_bit_rgb_as_stored(tmp_path, root, kind, crop):
    (root / "images/car/n01.JPEG").write_bytes(GOOD_IMAGES[kind])
    convert(root, tmp_path / "out", "--crop", crop)
    data = load_dataset(str(tmp_path / "out"), split="train")
    picture = data[1]["image"]
    assert picture.mode == "RGB"
    if crop == "scene":
        assert picture.size == (WIDTH, HEIGHT)
    red, green, blue = picture.getpixel((picture.width // 2, picture.height // 2))
    grey = kind in ("grey", "16 bits")
    expected = (116, 116, 116) if grey else (200, 90, 30)
    assert np.abs(np.subtract((red, green, blue), expected)).max() < (25 if kind in ("CMYK", "palette") else 6)


def unknown_name(name):
    with pytest.raises(UserError) as error:
        taxonomy.resolve(name)
    return str(error.value)


def test_a_bad_object_leaves_the_objects_beside_it(tmp_path, capsys, root):
    write_npz(
        root / "annotations/car/n01.npz",
        annotation(theta=math.nan),
        annotation(),
        annotation(bbox=[40.0, 10.0, 20.0, 30.0]),
        annotation(bbox=[70.0, 10.0, 90.0, 30.0]),
        annotation(**{"class": "spaceship"}),
        annotation(azimuth=270.0),
        annotation(object_status="status_bad", theta=math.nan),
        annotation(ignore=1),
        annotation(px=2.0, py=2.0, distance=400.0),
        annotation(**{"class": "chair"}),
    )
    convert(root, tmp_path / "out", *SKIP)
    printed = capsys.readouterr().out.splitlines()
    ids = [(row.image_id, row.objects[0].object_id) for row in rows_of(tmp_path / "out", "train")]
    assert ids == [("babby_buggy/n03", 0), ("car/n01", 1), ("car/n01", 9)]
    assert [line for line in printed if line.startswith("train: left out")] == [
        "train: left out: azimuth in error: 1",
        "train: left out: bbox in error: 1",
        "train: left out: box outside the image: 1",
        "train: left out: distance <= 0: 1",
        "train: left out: ignore: 1",
        "train: left out: object outside the crop: 1",
        "train: left out: status_bad: 2",
        "train: left out: theta in error: 1",
        "train: left out: unknown category: 1",
    ]
    npz = f"{root}/annotations/car/n01.npz: annotations"
    messages = [
        f"{npz}[0].theta: expected a finite number, found nan",
        f"{npz}[2].bbox: box has no area: (40.0, 10.0, 20.0, 30.0)",
        f"{npz}[4].class: {unknown_name('spaceship')}",
        f"{npz}[5].azimuth: expected radians, found 270.0",
        f"{npz}[3].bbox: (70.0, 10.0, 90.0, 30.0) lies outside the 60x40 image",
        f"{npz}[8].bbox: (20.0, 10.0, 42.0, 30.0) lies outside the crop around (2.0, 2.0)",
    ]
    assert [line for line in printed if "in error: /" in line] == [f"train: in error: {text}" for text in messages]
    listed = [json.loads(line) for line in (tmp_path / "out/skipped.jsonl").read_text().splitlines()]
    assert [line["message"] for line in listed] == messages
    assert {(line["split"], line["image_id"]) for line in listed} == {("train", "car/n01")}
    assert listed[0]["reason"] == "theta in error"


@pytest.mark.parametrize("crop", ["object", "box", "scene"])
def test_a_folder_with_a_list_of_mistakes_opens_as_train_and_val(tmp_path, root, crop):
    (root / "images/car/n01.JPEG").write_bytes(b"no image")
    convert(root, tmp_path / "out", "--crop", crop, "--on-error", "skip")
    assert (tmp_path / "out/skipped.jsonl").exists()
    assert "`skipped.jsonl`" in (tmp_path / "out/README.md").read_text()
    assert {split: len(rows) for split, rows in load_dataset(str(tmp_path / "out")).items()} == {"train": 1, "val": 1}


@pytest.mark.parametrize(
    ("missing", "reason"),
    [("images/car/n01.JPEG", "image in error"), ("annotations/car/n01.npz", "annotations in error")],
)
def test_a_list_entry_without_a_file_is_named_or_left_out(tmp_path, capsys, root, missing, reason):
    (root / missing).unlink()
    with pytest.raises(UserError, match=missing):
        convert(root, tmp_path / "strict", "--size", "32")
    convert(root, tmp_path / "out", *SKIP)
    assert f"train: left out: {reason}: 1\n" in capsys.readouterr().out


def test_lists_in_error_are_named_or_left_out(tmp_path, capsys, root):
    lists = root / "lists"
    with open(lists / "car_imagenet_train.txt", "a") as stream:
        stream.write("n02\n../n04\n")
    (lists / "carr_imagenet_train.txt").write_text("n9\n")
    (lists / "chair_imagenet_train.txt").write_bytes(b"\xff\n")
    messages = [
        f"{lists}/car_imagenet_train.txt:3: 'n02' repeats line 2",
        f"{lists}/car_imagenet_train.txt:4: '../n04' is not a plain file name",
        f"{lists}/carr_imagenet_train.txt: category: unknown name 'carr'",
        f"{lists}/chair_imagenet_train.txt: list cannot be read",
    ]
    with pytest.raises(UserError, match="'n02' repeats line 2"):
        convert(root, tmp_path / "strict", "--size", "32")
    convert(root, tmp_path / "out", *SKIP)
    printed = capsys.readouterr().out
    listed = [json.loads(line)["message"] for line in (tmp_path / "out/skipped.jsonl").read_text().splitlines()]
    for message, line in zip(messages, listed, strict=True):
        assert line.startswith(message) and f"lists: in error: {message}" in printed
    assert len(rows_of(tmp_path / "out", "train")) == 3


def test_an_image_of_both_splits_is_named_or_held_out(tmp_path, root):
    with open(root / "lists/car_imagenet_train.txt", "a") as stream:
        stream.write("n04\n")
    with pytest.raises(UserError, match="car/n04 is listed in train and, before, in val"):
        convert(root, tmp_path / "strict", "--size", "32")
    convert(root, tmp_path / "out", *SKIP)
    assert "car/n04" not in {row.image_id for row in rows_of(tmp_path / "out", "train")}
    assert [row.image_id for row in rows_of(tmp_path / "out", "val")] == ["car/n04"]


@pytest.mark.parametrize("split", ["train", "val"])
def test_one_split_alone_is_noted_and_opens(tmp_path, capsys, root, split):
    other = {"train": "val", "val": "train"}[split]
    for path in (root / "lists").glob(f"*_imagenet_{other}.txt"):
        path.unlink()
    convert(root, tmp_path / "out", "--size", "32")
    assert f"note: ImageNet3D lists no image for {other}, so the data has no such split" in capsys.readouterr().err
    assert list(load_dataset(str(tmp_path / "out"))) == [split]


def test_nothing_left_of_a_split_is_a_mistake_in_either_mode(tmp_path, root):
    write_npz(root / "annotations/car/n04.npz", annotation(distance=0))
    for options in ((), ("--on-error", "skip")):
        with pytest.raises(UserError, match=r"split 'val' is empty: nothing is left \(distance <= 0: 1\)"):
            convert(root, tmp_path / "out", "--size", "32", *options)


def test_cad_models_are_not_needed(tmp_path, root):
    assert not (root / "CAD").exists()
    convert(root, tmp_path / "out", "--size", "32")
    assert rows_of(tmp_path / "out", "train")[1].objects[0].cad_index == 1


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG", ".png"])
def test_images_may_have_other_suffixes(tmp_path, root, suffix):
    convert(root, tmp_path / "released", "--size", "32")
    path = root / "images/car/n01.JPEG"
    if suffix == ".png":
        Image.open(path).save(path.with_suffix(suffix))
        path.unlink()
    else:
        path.rename(path.with_suffix(suffix))
    convert(root, tmp_path / "out", "--size", "32")
    [released, found] = (rows_of(tmp_path / name, "train") for name in ("released", "out"))
    assert [row.image_id for row in found] == [row.image_id for row in released]
    assert np.abs(np.asarray(found[1].image, dtype=float) - np.asarray(released[1].image, dtype=float)).mean() < 1


@pytest.mark.parametrize("name", ["mit leer zeichen", "größe-ü", "図形", "it's"])
def test_names_with_spaces_and_other_letters(tmp_path, name):
    root = tmp_path / f"root {name}"
    add_image(root, "train", "car", f"n {name}", annotation())
    add_image(root, "val", "car", "n02", annotation())
    convert(root, tmp_path / f"out {name}", "--size", "32")
    assert [row.image_id for row in rows_of(tmp_path / f"out {name}", "train")] == [f"car/n {name}"]


def write_caption(root, text, name="car/n01"):
    path = root / f"captions/{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_captions_beside_the_data_are_used_where_the_row_shows_what_they_speak_of(tmp_path, root):
    write_caption(root, "Two things: a dining table <pose6d> and a car <pose6D>.")
    write_caption(root, "A lone car <pose6d>.", "car/n04")
    convert(root, tmp_path / "scene", "--crop", "scene")
    [_, row] = rows_of(tmp_path / "scene", "train")
    assert row.caption == "Two things: a dining table <pose> and a car <pose>." and row.caption_objects == (2, 0)
    convert(root, tmp_path / "box", "--crop", "box")
    assert [row.caption.count("<pose>") for row in rows_of(tmp_path / "box", "train")] == [1, 1, 1]
    assert [row.caption for row in rows_of(tmp_path / "box", "val")] == ["A lone car <pose>."]
    names = tmp_path / "names.txt"
    names.write_text("car\nbaby_buggy\n")
    convert(root, tmp_path / "cars", "--crop", "scene", "--categories", str(names))
    [_, row] = rows_of(tmp_path / "cars", "train")
    assert "dining table" not in row.caption and row.caption_objects == (0,)


def test_a_caption_in_error_is_named_or_replaced(tmp_path, capsys, root):
    write_caption(root, "An elephant <pose6d>.")
    with pytest.raises(UserError, match=r"captions/car/n01\.txt"):
        convert(root, tmp_path / "strict", "--crop", "scene")
    convert(root, tmp_path / "out", "--crop", "scene", "--on-error", "skip")
    assert "train: left out: caption in error: 1" in capsys.readouterr().out
    [_, row] = rows_of(tmp_path / "out", "train")
    assert "elephant" not in row.caption and sorted(row.caption_objects) == [0, 2]


def test_a_changed_caption_is_seen_by_a_conversion_that_goes_on(tmp_path, root):
    (root / "images/car/n04.JPEG").rename(tmp_path / "away")
    with pytest.raises(UserError, match="1 of 2 shards are finished"):
        convert(root, tmp_path / "out", "--crop", "scene")
    shutil.move(tmp_path / "away", root / "images/car/n04.JPEG")
    write_caption(root, "A car <pose6d> and a dining table <pose6d>, newly told.")
    convert(root, tmp_path / "out", "--crop", "scene")
    assert "newly told" in rows_of(tmp_path / "out", "train")[1].caption
