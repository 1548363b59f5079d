"""Samples by number, features by content: nothing depends on what ran before."""

import copy
import re

import numpy as np
import pytest
import torch

from llava_pose.geometry import mirror_pose
from llava_pose.scene import PosedImage, load_split
from llava_pose.words import turn_words
from train import features
from train.data import TrainingRows
from train.features import FeatureCache, RowPictures, build_feature_cache, tower_features
from train.sets import PosedRows


@pytest.fixture
def train_split(data_dir):
    return load_split(data_dir, "train")


@pytest.fixture
def cache_path(tiny_pair, train_split, data_dir):
    return build_feature_cache(*tiny_pair, RowPictures(train_split), data_dir / "tiny-features", show_progress=False)


@pytest.fixture
def rows(train_split, tiny_pair):
    def make(cache=None, **settings):
        return TrainingRows(
            [PosedRows(train_split, cache=cache)], tiny_pair[1], **{"seed": 0, "flip": True, **settings}
        )

    return make


def equal(first, second):
    assert first.keys() == second.keys()
    first, second = (
        {**sample, **sample["images"].tensors, "images": sample["images"].tokens} for sample in (first, second)
    )
    return all(np.array_equal(np.asarray(first[name]), np.asarray(second[name])) for name in first)


def test_a_sample_is_a_function_of_the_seed_and_its_number(rows):
    one, two, other = rows(), rows(), rows(seed=1)
    for number in (5, 0, 100, 23, 24):
        assert equal(one[number], two[number])
    assert not all(equal(one[number], other[number]) for number in range(5))


def test_an_epoch_holds_every_row_once_and_the_next_in_another_order(rows):
    samples = rows(flip=False)
    poses = [samples[number]["poses"][0].tolist() for number in range(48)]
    first, second = poses[:24], poses[24:]
    assert len({tuple(pose) for pose in first}) >= 24
    assert first != second


def test_text_and_pose_follow_the_flip(rows, train_split, tiny_pair):
    poses = np.array([item.pose for row in train_split for item in PosedImage.from_row(row).objects])
    sides = set()
    unflipped, maybe_flipped = rows(flip=False), rows()
    for number in range(400):
        plain, sample = unflipped[number], maybe_flipped[number]
        flipped = [np.abs(mirror_pose(poses) - pose).max(-1).min() < 1e-12 for pose in sample["poses"]]
        kept = [np.abs(poses - pose).max(-1).min() < 1e-12 for pose in sample["poses"]]
        assert all(flipped) or all(kept)
        assert np.abs(poses - plain["poses"][0]).max(-1).min() < 1e-12
        text = tiny_pair[1].tokenizer.decode(sample["ids"][sample["labels"] != -100])
        told = re.search("about [0-9]+ degrees to its own (left|right)", text)
        if told:
            turns = [turn_words(pose) for pose in sample["poses"]]
            assert any(words.endswith(told[0]) for words in turns)
            sides.add((told[1], all(flipped)))
    assert sides == {("left", True), ("left", False), ("right", True), ("right", False)}


def test_pixels_follow_the_flip(rows, train_split, tiny_pair):
    processor = tiny_pair[1]
    samples = rows()
    images = [PosedImage.from_row(row) for row in train_split]
    for number in range(12):
        sample = samples[number]
        for record in images:
            for candidate in (record, record.mirrored()):
                if any(np.allclose(item.pose, sample["poses"][0]) for item in candidate.objects):
                    expected = processor.pixels([candidate.image])
        torch.testing.assert_close(sample["images"].tensors, expected.tensors)


def test_every_sample_has_as_many_marks_as_poses_and_supervises_them(rows, tiny_pair):
    for number in range(48):
        sample = rows()[number]
        marks = sample["ids"] == tiny_pair[1].pose_token_id
        assert marks.sum() == len(sample["poses"]) >= 1
        assert (sample["labels"][marks] == tiny_pair[1].pose_token_id).all()


def test_rows_of_two_folders_are_laid_end_to_end(train_split, data_dir, tiny_pair):
    other = load_split(data_dir, "val")
    both = TrainingRows([PosedRows(train_split), PosedRows(other)], tiny_pair[1], seed=0, flip=False)
    assert len(both) == 24 + 9
    seen = {tuple(both[number]["poses"][0]) for number in range(33)}
    firsts = {tuple(PosedImage.from_row(row).objects[0].pose) for row in other}
    assert len(seen & firsts) >= 7


def test_a_batch_keeps_the_poses_in_reading_order(rows, tiny_pair):
    samples = [rows()[number] for number in range(6)]
    batch = rows().collate(samples)
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape
    np.testing.assert_array_equal(batch["poses"], np.concatenate([sample["poses"] for sample in samples]))
    assert batch["pixel_values"].shape == (6, 3, 128, 128)
    for row, sample in zip(batch["input_ids"], samples, strict=True):
        assert row[: len(sample["ids"])].tolist() == sample["ids"].tolist()
        assert (row[len(sample["ids"]) :] == tiny_pair[1].tokenizer.pad_token_id).all()


def test_cached_features_are_the_towers_own_for_both_mirror_images(cache_path, train_split, tiny_pair):
    model, processor = tiny_pair
    cache = FeatureCache(cache_path)
    assert len(cache) == 24
    for number in (0, 5, 23):
        record = PosedImage.from_row(train_split[number])
        for mirrored in (False, True):
            picture = record.mirrored().image if mirrored else record.image
            expected = tower_features(model, processor.pixels([picture]).tensors["pixel_values"])[0]
            # bfloat16 keeps eight bits.
            torch.testing.assert_close(cache.get(number, mirrored).float(), expected, rtol=0.01, atol=0.02)
        assert not torch.equal(cache.get(number, False), cache.get(number, True))


def test_cached_samples_equal_those_from_pixels(cache_path, rows, tiny_pair):
    cached, direct = rows(FeatureCache(cache_path)), rows()
    for number in range(10):
        with_features, with_pixels = cached[number], direct[number]
        for name in ("ids", "labels", "poses"):
            np.testing.assert_array_equal(with_features[name], with_pixels[name])
        expected = tower_features(tiny_pair[0], with_pixels["images"].tensors["pixel_values"])
        torch.testing.assert_close(with_features["vision_features"].float(), expected, rtol=0.01, atol=0.02)


def test_a_cache_is_used_again_and_made_anew_when_anything_changes(cache_path, tiny_pair, train_split, data_dir):
    model, processor = tiny_pair
    before = cache_path.stat().st_mtime_ns

    def build(model=model, processor=processor, data=train_split):
        return build_feature_cache(model, processor, RowPictures(data), cache_path.parent, show_progress=False)

    assert build() == cache_path and cache_path.stat().st_mtime_ns == before
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.model.vision_tower.stem.weight[0, 0, 0, 0] += 1e-3
    assert build(model=changed) != cache_path
    other = copy.deepcopy(processor)
    other.image_processor.image_mean = [0.5, 0.5, 0.5]
    assert build(processor=other) != cache_path
    assert build(data=load_split(data_dir, "val")) != cache_path
    assert build(data=train_split.select(range(12))) != cache_path
    assert build(data=train_split.select(range(23, -1, -1))) != cache_path, "another order is another cache"
    assert not list(cache_path.parent.glob("*partial*"))
    language = copy.deepcopy(model)
    with torch.no_grad():
        language.lm_head.weight += 1
    assert build(model=language) == cache_path, "the tower's features do not depend on the language model"


def test_a_selection_of_rows_is_cached_as_selected(cache_path, tiny_pair, train_split):
    picked = train_split.select([7, 3])
    path = build_feature_cache(*tiny_pair, RowPictures(picked), cache_path.parent, show_progress=False)
    whole, part = FeatureCache(cache_path), FeatureCache(path)
    torch.testing.assert_close(part.get(0, False), whole.get(7, False), rtol=0.01, atol=0.02)
    torch.testing.assert_close(part.get(1, True), whole.get(3, True), rtol=0.01, atol=0.02)


def test_features_in_half_precision_are_near_and_kept_apart(cache_path, tiny_pair, train_split):
    path = build_feature_cache(*tiny_pair, RowPictures(train_split), cache_path.parent, show_progress=False, half=True)
    assert path != cache_path
    exact, half = (
        torch.stack([FeatureCache(file).get(k, False) for k in range(24)]).float() for file in (cache_path, path)
    )
    assert 0 < (half - exact).norm() < 0.05 * exact.norm()


def test_a_killed_build_leaves_no_cache(tiny_pair, train_split, tmp_path, monkeypatch):
    def fail(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(features, "tower_features", fail)
    with pytest.raises(KeyboardInterrupt):
        build_feature_cache(*tiny_pair, RowPictures(train_split), tmp_path, show_progress=False)
    assert list(tmp_path.iterdir()) == []
