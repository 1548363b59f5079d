"""Evaluation while training: the same rows every time, spread over the categories, and what it says of them."""

import copy

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState

from llava_pose.engine import Engine
from llava_pose.errors import UserError
from llava_pose.evaluation import predict_records, score
from llava_pose.launch import make_accelerator
from llava_pose.scene import PosedImage, load_split
from train.config import TrainConfig
from train.validation import Validation, spread_places


@pytest.fixture
def config(recipe, tmp_path):
    return lambda **more: TrainConfig.model_validate(recipe(tmp_path, **more))


@pytest.fixture
def accelerator():
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    return make_accelerator(mixed_precision="no")


class Always(torch.nn.Module):
    """A vocabulary matrix that says one token, whatever the state, with all others alike."""

    def __init__(self, token, size):
        super().__init__()
        self.token, self.size = token, size

    def forward(self, hidden):
        logits = torch.zeros(*hidden.shape[:-1], self.size)
        logits[..., self.token] = 50.0
        return logits


def test_places_are_as_even_over_the_categories_as_they_allow():
    categories = ["car"] * 10 + ["bus"] * 2 + ["boat"] * 6
    chosen = spread_places(categories, 9)
    assert [categories[place] for place in chosen] == ["car"] * 4 + ["bus"] * 2 + ["boat"] * 3
    assert chosen == [0, 2, 5, 7, 10, 11, 12, 14, 16]
    assert spread_places(categories, 100) == list(range(18))
    assert spread_places(categories, 2) == [0, 12] and spread_places([], 5) == []


@pytest.mark.parametrize("count", range(1, 12))
def test_as_many_places_are_chosen_as_asked_for_and_none_twice(count):
    categories = ["a", "b", "b", "c", "c", "c", "d", "d", "d", "d"]
    chosen = spread_places(categories, count)
    assert len(set(chosen)) == len(chosen) == min(count, 10)


def test_rows_with_several_objects_are_left_out(data_dir, config):
    validation = Validation([load_split(data_dir, "val")], config(eval_rows=100))
    assert [row for _, row in validation.rows] == [0, 1, 2, 3, 5, 6, 7, 8]
    assert validation.categories == ["bicycle", "car", "sofa"]


def test_deciding_by_evaluations_needs_rows_to_evaluate_on(config):
    nothing = [{"objects": [[{"category": "car"}, {"category": "bus"}], []]}]
    for settings in ({"keep_best": True}, {"early_stopping": 2}):
        with pytest.raises(UserError, match="keep_best, early_stopping: the data has no val row with one object"):
            Validation(nothing, config(eval_every=2, **settings))
    assert not Validation(nothing, config()).rows


def test_a_split_without_such_rows_is_not_evaluated(config, accelerator, tiny_pair):
    assert Validation([{"objects": [[]]}], config()).evaluate(accelerator, *tiny_pair) == {}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_scores_are_those_of_evaluating_the_rows(data_dir, config, accelerator, tiny_pair, precision):
    model, processor = tiny_pair
    data = load_split(data_dir, "val")
    found = Validation([data], config(eval_rows=6, precision=precision)).evaluate(accelerator, model, processor)
    records = [PosedImage.from_row(data[row]) for row in (0, 1, 2, 3, 5, 7)]
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        lines = list(predict_records(Engine(model, processor), records, ["bicycle", "car", "sofa"], 2))
    expected = score(lines)["joint"]["average"]
    emission = found.pop("val_pose_emission")
    assert 0 <= emission <= 100
    assert found.keys() == {f"val_{name}" for name in expected} and found["val_count"] == 6
    assert found["val_mean_error_deg"] == pytest.approx(expected["mean_error_deg"], rel=0.05)


@pytest.mark.parametrize("says, rate", [("<pose>", 100.0), ("</s>", 0.0), ("car", 0.0)])
def test_the_emission_rate_is_how_often_the_model_writes_a_pose_by_itself(
    data_dir, config, accelerator, tiny_pair, says, rate
):
    model, processor = copy.deepcopy(tiny_pair[0]), tiny_pair[1]
    token = processor.tokenizer.encode(f" {says}", add_special_tokens=False)[-1]
    model.lm_head = Always(token, len(processor.tokenizer))
    found = Validation([load_split(data_dir, "val")], config()).evaluate(accelerator, model, processor)
    assert found["val_pose_emission"] == rate
