"""Posed images and plain conversations in one batch, in every family: each row is what it is alone."""

import pytest
import torch

from llava_pose.scene import load_split
from tests.plain_talk import kinds, write_plain
from train.data import TrainingRows
from train.plain import load_plain
from train.sets import PlainRows, PosedRows


def losses(model, batch):
    with torch.inference_mode():
        output = model(**batch, num_items_in_batch=1, num_poses_in_batch=1)
    return float(output.language_loss), float(output.pose_loss)


def test_a_batch_with_images_and_without_is_what_its_rows_are_alone(family, data_dir, tmp_path):
    sets = [PosedRows(load_split(data_dir, "train")), PlainRows(load_plain(write_plain(tmp_path)), weight=2.0)]
    rows = TrainingRows(sets, family.processor, seed=0, flip=True)
    found = kinds(rows, 48)
    chosen = [number for numbers in found.values() for number in numbers[:2]]
    assert len(chosen) == 6
    alone = [losses(family.model, rows.collate([rows[number]])) for number in chosen]
    together = losses(family.model, rows.collate([rows[number] for number in chosen]))
    assert together[0] == pytest.approx(sum(tokens for tokens, _ in alone), rel=1e-3)
    assert together[1] == pytest.approx(sum(poses for _, poses in alone), rel=1e-3)
    assert [poses > 0 for _, poses in alone] == [number in found["posed"] for number in chosen]
