"""Opening pictures, cutting boxes out of them, and saving."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llava_pose.errors import UserError
from llava_pose.families.llava import square
from llava_pose.folders import model_source
from llava_pose.images import SPARE, check_png_target, crop_box, image_size, open_image, open_views, save_png

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "llava_pose" / "assets" / "samples" / "car.jpg"

RED, BLUE = (250, 10, 10), (10, 10, 250)


@pytest.fixture
def sideways(tmp_path):
    """A photo taken with the camera on its side: upright, it is 60 wide, 80 high, and red at the top."""
    upright = Image.new("RGB", (60, 80), BLUE)
    upright.paste(RED, (0, 0, 60, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to show
    path = tmp_path / "sideways.png"
    upright.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    return path


def test_pictures_and_their_boxes_are_upright(sideways):
    image = open_image(sideways)
    assert image.size == image_size(sideways) == (60, 80)
    top = np.asarray(crop_box(image, (20, 4, 30, 14)))
    assert top.shape == (12, 12, 3) and (top == RED).all()
    assert open_image(Image.open(sideways)).size == (60, 80)


def test_a_crop_is_a_square_around_the_box_and_black_beyond_the_picture():
    crop = np.asarray(crop_box(Image.new("RGB", (100, 50), RED), (80, 10, 100, 30)))
    assert crop.shape == (24, 24, 3)
    assert (crop[:, :22] == RED).all() and not crop[:, 22:].any()


def test_a_box_beyond_the_picture_is_cut_to_it():
    image = Image.new("RGB", (100, 50), RED)
    assert crop_box(image, (-1e9, -1e9, 1e9, 1e9)).size == crop_box(image, (0, 0, 100, 50)).size == (120, 120)
    assert crop_box(image, (99.9, 10, 500, 10.001)).size == (1, 1)


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (9, 5, 5, 9), (0, 60, 10, 70), (float("inf"), 0, 1, 1)])
def test_a_box_without_a_part_of_the_picture_is_refused(box):
    with pytest.raises(UserError, match=r"^box: "):
        crop_box(Image.new("RGB", (100, 50)), box)


@pytest.mark.parametrize("size", [0, 20, 60])
def test_a_truncated_picture_is_refused_by_name(tmp_path, size):
    whole, broken = tmp_path / "whole.png", tmp_path / "broken.png"
    Image.effect_noise((64, 64), 50).save(whole)
    broken.write_bytes(whole.read_bytes()[:size])
    with pytest.raises(UserError, match=r"broken\.png: not an image that can be read"):
        open_image(broken)


def test_a_picture_replaces_an_older_one_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    save_png(Image.new("RGB", (4, 4), RED), path)
    monkeypatch.setattr(Image.Image, "save", lambda self, file, format: (file.write_text("half"), _raise())[0])
    with pytest.raises(UserError, match=r"a\.png: cannot save the picture: disk full"):
        save_png(Image.new("RGB", (4, 4), BLUE), path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]
    assert Image.open(path).getpixel((0, 0)) == RED


def _raise():
    raise OSError("disk full")


def test_asking_whether_a_picture_can_be_saved_leaves_no_trace(tmp_path):
    check_png_target(tmp_path / "a.PNG")
    assert not list(tmp_path.iterdir())


def test_a_hub_name_is_taken_for_one_only_where_no_folder_is_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model_source("llava-hf/llava-1.5-7b-hf") == "llava-hf/llava-1.5-7b-hf"
    (tmp_path / "runs").mkdir()
    for name in ("runs/demo", "runs", "demo", "a/b/c", "/none", "~/model", ""):
        with pytest.raises(UserError):
            model_source(name)
    (tmp_path / "runs" / "config.json").write_text("{}")
    assert model_source("runs") == "runs"


GREY16 = (np.arange(64 * 48, dtype=np.uint16) * 20).reshape(48, 64)


def white_behind(alpha):
    """Red on white, as a page shows it."""
    return tuple(round(alpha / 255 * part + (1 - alpha / 255) * 255) for part in RED)


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (Image.new("L", (8, 8), 77), (77, 77, 77)),
        (Image.new("1", (8, 8), 1), (255, 255, 255)),
        (Image.new("RGBA", (8, 8), (*RED, 255)), RED),
        (Image.new("RGBA", (8, 8), (*RED, 0)), (255, 255, 255)),
        (Image.new("RGBA", (8, 8), (*RED, 64)), white_behind(64)),
        (Image.new("LA", (8, 8), (0, 0)), (255, 255, 255)),
        (Image.new("RGB", (8, 8), RED).quantize(4), RED),
        (Image.fromarray(np.full((8, 8), 77 * 257, np.uint16)), (77, 77, 77)),
        (Image.fromarray(np.full((8, 8), 77 * 257, np.int32)), (77, 77, 77)),
        (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), (255, 0, 0)),
        (Image.new("HSV", (8, 8), (0, 255, 255)), (255, 0, 0)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_every_kind_of_picture_becomes_rgb(image, colour):
    opened = open_image(image)
    assert opened.mode == "RGB"
    assert np.abs(np.asarray(opened, dtype=int) - colour).max() <= 1


def test_files_of_every_kind_become_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=95)
    assert np.abs(np.asarray(open_image(tmp_path / "print.jpg"), dtype=int) - (255, 0, 0)).max() <= 4
    Image.fromarray(GREY16).save(tmp_path / "deep.png")
    assert np.abs(np.asarray(open_image(tmp_path / "deep.png"))[..., 0] - GREY16 / 257).max() <= 0.5
    clear = Image.new("RGB", (8, 8), RED).quantize(4)
    clear.save(tmp_path / "clear.gif", transparency=clear.getpixel((0, 0)))
    assert (np.asarray(open_image(tmp_path / "clear.gif")) == 255).all()
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert (np.asarray(open_image(tmp_path / "moving.webp")) == RED).all()


def test_numbers_without_a_range_are_refused_by_name():
    with pytest.raises(UserError, match=r"^images\[1\]: not an image that can be read: pixels that are not whole"):
        open_image(Image.new("F", (4, 4)), "images[1]")


def test_numbers_beyond_16_bits_are_refused():
    with pytest.raises(UserError, match=r"image: .*more than 16 bits"):
        open_image(Image.fromarray(np.full((4, 4), 70_000, np.int32)))


@pytest.mark.parametrize("claimed", [(9_000, 9_000), (10_000, 10_000), (60_000, 60_000)])
def test_a_small_file_that_claims_to_be_enormous_is_refused_by_its_header(tmp_path, claimed):
    path = tmp_path / "bomb.png"
    path.write_bytes(_png_start(*claimed))
    for read in (open_image, image_size, lambda path: open_views(path, [None], 32)):
        with pytest.raises(UserError, match=r"bomb\.png: .*pixels"):
            read(path)


def _png_start(width, height):
    """A PNG as far as its first pixels."""
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            _png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            _png_chunk(b"IDAT", zlib.compress(b"\0" * 10)),
        ]
    )


def _png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def gradient(width, height):
    """A smooth picture whose colour tells the place."""
    x, y = np.linspace(0, 255, width), np.linspace(0, 255, height)
    channels = [np.broadcast_to(x, (height, width)), np.broadcast_to(y[:, None], (height, width))]
    return Image.fromarray(np.stack([*channels, np.full((height, width), 128.0)], -1).astype(np.uint8))


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("box", [None, (500, 100, 2300, 1500), (10, 10, 40, 30), (-50, -50, 5000, 90)])
def test_views_of_a_large_photo_show_what_its_full_size_shows(tmp_path, box, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "large.jpg"
    gradient(2405, 1603).save(path, quality=95, exif=exif)
    if orientation == 6 and box is not None:
        box = (box[1], box[0], box[3], box[2])
    side = 32
    (view,) = open_views(path, [box], side)
    assert max(view.size) < 2 * SPARE * side
    whole = crop_box(open_image(path), box)
    small = [
        np.asarray(square(picture).resize((side, side), Image.Resampling.BICUBIC), int) for picture in (view, whole)
    ]
    assert np.abs(small[0] - small[1]).mean() < 2.5
    if whole.width < SPARE * side:
        assert view.size == whole.size, "what is small enough is as it is"


def test_views_are_the_same_for_a_file_and_for_its_picture(tmp_path):
    path = tmp_path / "small.png"
    gradient(150, 90).save(path)
    boxes = [None, (10, 20, 60, 70)]
    for one, other in zip(open_views(path, boxes, 64), open_views(Image.open(path), boxes, 64), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_many_views_of_huge_photos_take_little_memory(tmp_path):
    path = tmp_path / "huge.jpg"
    gradient(80, 60).resize((8000, 6000)).save(path, quality=85)
    code = f"""
import resource
from llava_pose.images import open_views
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
open_views({str(SAMPLE)!r}, [None], 192)
before = peak()
views = [view for _ in range(24) for view in open_views({str(path)!r}, [None, (0, 0, 5000, 5000)], 192)]
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    # Decoded whole, one alone takes 144 MB and its square 192 MB.
    assert float(done.stdout) < 200
