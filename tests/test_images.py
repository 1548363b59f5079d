"""Opening pictures, cutting boxes out of them, and saving."""

import numpy as np
import pytest
from PIL import Image

from llava_pose.errors import UserError
from llava_pose.folders import model_source
from llava_pose.images import check_png_target, crop_box, image_size, open_image, save_png

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
