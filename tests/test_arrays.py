"""Arrays and tensors as pictures: the same pixels are the same picture in any layout and type; all else is refused."""

import numpy as np
import pytest
import torch

from llava_pose.arrays import is_array, picture_of
from llava_pose.errors import UserError

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RGB[..., 0]


@pytest.mark.parametrize(
    "values",
    [
        RGB,
        np.asfortranarray(RGB),
        RGB.transpose(2, 0, 1),
        RGB.astype(np.uint16) * 257,
        RGB / 255,
        (RGB / 255).astype(np.float32),
        (RGB / 255).astype(np.float16),
        torch.from_numpy(RGB),
        torch.from_numpy(RGB).permute(2, 0, 1),
        (torch.from_numpy(RGB) / 255).permute(2, 0, 1).requires_grad_(),
        (torch.from_numpy(RGB) / 255).double(),
    ],
)
def test_the_same_pixels_are_the_same_picture(values):
    assert is_array(values)
    picture = picture_of(values, "image")
    assert picture.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(picture), RGB)


def test_half_precision_tensors_are_as_exact_as_they_can_be():
    picture = picture_of((torch.from_numpy(RGB) / 255).bfloat16(), "image")
    assert np.abs(np.asarray(picture).astype(int) - RGB).max() <= 1


@pytest.mark.parametrize("values", [GREY, GREY[..., None], GREY[None], torch.from_numpy(GREY), GREY / 255])
def test_one_channel_is_grey(values):
    picture = picture_of(values, "image")
    assert picture.mode == "L"
    np.testing.assert_array_equal(np.asarray(picture), GREY)


def test_four_channels_have_alpha():
    rgba = np.dstack([RGB, GREY])
    assert picture_of(rgba, "image").mode == picture_of(torch.from_numpy(rgba), "image").mode == "RGBA"


def test_where_both_ends_could_be_channels_an_arrays_are_last_and_a_tensors_first():
    cube = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    assert picture_of(cube, "image").size == (5, 3)
    assert picture_of(torch.from_numpy(cube), "image").size == (3, 5)


def test_a_rounding_error_beyond_0_to_1_is_none():
    assert np.asarray(picture_of(np.array([[-1e-4, 1.0001]]), "image")).tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.zeros((2, 3, 5, 3), np.uint8), r"shape \(2, 3, 5, 3\): expected \(H, W\)"),
        (np.zeros((5, 7, 2), np.uint8), r"shape \(5, 7, 2\)"),
        (np.zeros((0, 7, 3), np.uint8), r"shape \(0, 7, 3\)"),
        (np.zeros(7, np.uint8), r"shape \(7,\)"),
        (torch.zeros(2, 5, 7), r"shape \(2, 5, 7\)"),
        (RGB.astype(np.int64), "values of type int64: expected uint8, uint16 or floats from 0 to 1"),
        (RGB > 100, "values of type bool"),
        (RGB.astype(np.float32), r"values from 0 to 24\d: floats must lie in 0 to 1"),
        (RGB / 127.5 - 1, r"values from -1 to 0\.9\d*: floats must lie in 0 to 1"),
        (np.where(GREY > 100, np.nan, 0.5), "values from nan to nan"),
        (np.full((4, 4), np.inf), "values from inf to inf"),
        (np.array([["a.jpg"]]), "values of type <U5"),
    ],
)
def test_what_is_no_picture_is_refused_by_name_field_and_value(values, told):
    with pytest.raises(UserError, match=rf"^images\[3\]: {told}"):
        picture_of(values, "images[3]")
