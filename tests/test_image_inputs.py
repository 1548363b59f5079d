"""Prepared images: chosen, joined and moved without losing which is which."""

import pytest
import torch

from llava_pose.image_inputs import ImageInputs


def tiled(*tiles, mirrored=None):
    """One image for each number of tiles, its pixels its own number, three tokens a tile."""
    parts = [
        ImageInputs(
            {"pixel_values": torch.full((1, count, 3, 2, 2), 1.0 + i), "sizes": torch.tensor([[i, count]])},
            (3 * count,),
        )
        for i, count in enumerate(tiles)
    ]
    joined = ImageInputs.join(parts)
    return ImageInputs(joined.tensors, joined.tokens, mirrored)


def test_images_of_fewer_tiles_are_filled_up_with_zeros():
    images = tiled(1, 3, 2)
    assert len(images) == 3 and images.tokens == (3, 9, 6)
    assert images.tensors["pixel_values"].shape == (3, 3, 3, 2, 2)
    for row, count in enumerate((1, 3, 2)):
        assert (images.tensors["pixel_values"][row, :count] == 1 + row).all()
        assert (images.tensors["pixel_values"][row, count:] == 0).all()
    assert images.tensors["sizes"].tolist() == [[0, 1], [1, 3], [2, 2]]


def test_chosen_images_come_in_the_order_asked_for_with_their_mirror_images():
    images = tiled(1, 2, 3, mirrored=tiled(3, 2, 1))
    chosen = images.select([2, 0])
    assert chosen.tokens == (9, 3) and chosen.tensors["sizes"].tolist() == [[2, 3], [0, 1]]
    assert chosen.mirrored.tokens == (3, 9)
    assert images.select([]).tokens == ()


def test_joining_keeps_mirror_images_only_where_every_part_has_them():
    with_mirrored, without = tiled(1, 2, mirrored=tiled(2, 1)), tiled(1)
    assert ImageInputs.join([with_mirrored, with_mirrored]).mirrored.tokens == (6, 3, 6, 3)
    assert ImageInputs.join([with_mirrored, without]).mirrored is None


def test_only_fractions_change_their_precision():
    moved = tiled(1, 2, mirrored=tiled(1, 2)).to("cpu", torch.bfloat16)
    assert moved.tensors["pixel_values"].dtype == torch.bfloat16
    assert moved.tensors["sizes"].dtype == torch.int64
    assert moved.mirrored is not None


def test_images_of_two_models_and_no_images_are_refused():
    with pytest.raises(ValueError, match="two models"):
        ImageInputs.join([tiled(1), ImageInputs({"pixel_values": torch.zeros(1, 3, 2, 2)}, (4,))])
    with pytest.raises(ValueError, match="no images"):
        ImageInputs.join([])
