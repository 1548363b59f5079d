"""The model: poses read at <pose> itself, losses over the global batch, and rows of every kind."""

import copy
import math

import numpy as np
import pytest
import torch

from llava_pose.bins import PoseBins
from llava_pose.losses import pose_losses
from llava_pose.processing import assistant_message, user_message
from train.features import tower_features

POSES = torch.tensor(np.random.default_rng(0).uniform(0, 6, (8, 3)))
POSES[:, 1] = POSES[:, 1] / 6 - 0.5


def row(processor, answer, image=True, question="Which way?"):
    return processor.encode([user_message(question, images=int(image)), assistant_message(answer)])


def batch_of(processor, answers, image=True):
    rows = [row(processor, answer, image) for answer in answers]
    batch = processor.pad([ids for ids, _ in rows], "right", [labels for _, labels in rows])
    if image:
        batch["pixel_values"] = pixels_of(len(answers))
    return batch


def pixels_of(count, side=32):
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def processor(released_pair):
    return released_pair[1]


@pytest.fixture
def model(released_pair):
    """A copy, so that gradients and settings stay in the test."""
    return copy.deepcopy(released_pair[0])


def gradients(model):
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def test_pose_logits_come_one_for_each_mark_in_reading_order(model, processor):
    batch = batch_of(processor, ["car <pose> and bus <pose>.", "nothing", "a sofa <pose>."])
    labels = batch.pop("labels")
    with torch.no_grad():
        output = model(**batch)
    assert output.pose_logits.shape == (3, 3, 40)
    places = [
        (int(b), int(s)) for b, s in zip(*torch.where(batch["input_ids"] == processor.pose_token_id), strict=True)
    ]
    assert [b for b, _ in places] == [0, 0, 2]
    by_hand = model.pose_head(torch.stack([output.last_hidden_state[place] for place in places]))
    torch.testing.assert_close(output.pose_logits, by_hand)
    assert labels is not None


def test_the_hidden_state_is_that_of_the_pose_token_itself(model, processor):
    batch = batch_of(processor, ["a red car <pose> stands there."])
    del batch["labels"]
    ids = batch["input_ids"]
    (at,) = torch.where(ids[0] == processor.pose_token_id)[0].tolist()

    @torch.no_grad()
    def logits_with(position, token):
        changed = ids.clone()
        changed[0, position] = token
        outputs = model.backbone(**{**batch, "input_ids": changed})
        return model.pose_head(outputs.last_hidden_state[0, at])

    same = logits_with(at, processor.pose_token_id)
    torch.testing.assert_close(logits_with(at + 1, 300), same, rtol=0, atol=0)
    assert not torch.allclose(logits_with(at, 300), same, atol=1e-4), "the token itself"
    assert not torch.allclose(logits_with(at - 1, 300), same, atol=1e-4), "the token before it"


def test_the_image_reaches_the_pose(model, processor):
    batch = batch_of(processor, ["car <pose>.", "car <pose>."])
    del batch["labels"]
    with torch.no_grad():
        first, second = model(**batch).pose_logits
    assert not torch.allclose(first, second, atol=1e-4)


def test_right_padding_changes_nothing(model, processor):
    answers = ["car <pose>.", "a longer answer about a car <pose> and another car <pose> beside it."]
    batch = batch_of(processor, answers)
    del batch["labels"]
    with torch.no_grad():
        together = model(**batch).pose_logits
        alone = []
        for index, answer in enumerate(answers):
            single = batch_of(processor, [answer])
            single["pixel_values"] = batch["pixel_values"][index : index + 1]
            del single["labels"]
            alone.append(model(**single).pose_logits)
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_losses_by_hand(model, processor):
    batch = batch_of(processor, ["car <pose>.", "a bus <pose> beside a sofa <pose>."])
    labels = batch["labels"]
    model.config.pose_loss_weight = 0.5
    with torch.no_grad():
        output = model(**batch, poses=POSES[:3])
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        plain = model(**inputs)
    expected = torch.nn.functional.cross_entropy(
        plain.logits[:, :-1].reshape(-1, plain.logits.shape[-1]), labels[:, 1:].reshape(-1), ignore_index=-100
    )
    torch.testing.assert_close(output.language_loss, expected)
    log_probabilities = torch.log_softmax(plain.pose_logits, -1)
    targets = PoseBins().soft_targets(POSES[:3], 1.0).float()
    by_hand = -(targets * log_probabilities).sum(-1).mean()
    torch.testing.assert_close(output.pose_loss, by_hand)
    torch.testing.assert_close(output.loss, output.language_loss + 0.5 * output.pose_loss)
    assert len(output.logits) == (labels[:, 1:] != -100).sum()


def test_the_pose_loss_of_a_head_without_an_opinion_is_the_log_of_the_bins(model, processor):
    torch.nn.init.zeros_(model.pose_head.linear_2.weight)
    torch.nn.init.zeros_(model.pose_head.linear_2.bias)
    output = model(**batch_of(processor, ["car <pose> bus <pose>."]), poses=POSES[:2])
    assert output.pose_loss.item() == pytest.approx(math.log(40))


def test_one_batch_of_eight_equals_eight_of_one(model, processor):
    answers = ["car <pose>.", "a bus <pose> beside a sofa <pose>.", "nothing at all", "<pose>"] * 2
    marks = [answer.count("<pose>") for answer in answers]
    poses = POSES.clone()
    poses[2] = math.nan
    batch = batch_of(processor, answers)
    model(**batch, poses=poses[: sum(marks)]).loss.backward()
    whole = gradients(model)
    model.zero_grad()
    tokens = (batch["labels"][:, 1:] != -100).sum()
    known = torch.isfinite(poses[: sum(marks)]).all(-1).sum()
    start = 0
    for index, answer in enumerate(answers):
        single = batch_of(processor, [answer])
        single["pixel_values"] = batch["pixel_values"][index : index + 1]
        mine = poses[start : start + marks[index]]
        start += marks[index]
        model(**single, poses=mine, num_items_in_batch=tokens, num_poses_in_batch=known).loss.backward()
    parts = gradients(model)
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        assert (parts[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-7, name


@pytest.mark.parametrize("marks", [0, 1, 5])
def test_rows_with_any_number_of_marks_train(model, processor, marks):
    answer = "things: " + " ".join(["a car <pose>,"] * marks) + " no more."
    output = model(**batch_of(processor, [answer]), poses=POSES[:marks])
    output.loss.backward()
    assert torch.isfinite(output.loss)
    assert output.pose_logits.shape[0] == max(marks, 1)
    assert (output.pose_loss.item() == 0) == (marks == 0)


def test_a_batch_without_marks_gives_the_head_gradients_of_zero_and_not_none(model, processor):
    model(**batch_of(processor, ["nothing here"])).loss.backward()
    for name, value in model.pose_head.named_parameters():
        assert value.grad is not None and value.grad.abs().max() == 0, name


def test_text_alone_trains(model, processor):
    output = model(**batch_of(processor, ["a car <pose>.", "no."], image=False), poses=POSES[:1])
    output.loss.backward()
    assert torch.isfinite(output.loss) and model.pose_head.linear_2.weight.grad.abs().max() > 0


def test_an_unknown_pose_is_unsupervised(model, processor):
    batch = batch_of(processor, ["car <pose> and bus <pose>."])
    unknown = POSES[:2].clone()
    unknown[1, 2] = math.nan
    both, one = model(**batch, poses=POSES[:2]), model(**batch, poses=unknown)
    single = pose_losses(both.pose_logits[:1], POSES[:1], 1.0, 40)[:3].mean()
    torch.testing.assert_close(one.pose_loss, single)
    one.loss.backward()
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())


def test_only_unknown_poses_give_no_pose_loss(model, processor):
    output = model(**batch_of(processor, ["car <pose>."]), poses=torch.full((1, 3), math.nan))
    output.loss.backward()
    assert output.pose_loss.item() == 0
    assert model.pose_head.linear_2.weight.grad.abs().max() == 0


@pytest.mark.parametrize("given", [None, 0, 1, 3])
def test_poses_that_do_not_match_the_marks_are_refused(model, processor, given):
    poses = None if given is None else POSES[:given]
    with pytest.raises(ValueError, match=f"2 <pose> tokens but {given or 0} poses"):
        model(**batch_of(processor, ["car <pose> and bus <pose>."]), poses=poses)


def test_supervising_nothing_gives_a_loss_of_zero_and_not_nan(model, processor):
    batch = batch_of(processor, ["car."])
    batch["labels"][:] = -100
    output = model(**batch)
    output.loss.backward()
    assert output.loss.item() == 0


@pytest.mark.parametrize("pair, side", [("released_pair", 32), ("tiny_pair", 128)])
def test_features_of_the_tower_stand_in_for_pixels(request, pair, side):
    model, processor = request.getfixturevalue(pair)
    batch = batch_of(processor, ["car <pose>.", "bus <pose>."], image=True)
    pixels = pixels_of(2, side)
    del batch["pixel_values"]
    with torch.no_grad():
        features = tower_features(model, pixels).clone()
        from_pixels = model(**batch, pixel_values=pixels, poses=POSES[:2])
        from_features = model(**batch, vision_features=features, poses=POSES[:2])
        from_half = model(**batch, vision_features=features.bfloat16(), poses=POSES[:2])
    torch.testing.assert_close(from_features.pose_logits, from_pixels.pose_logits)
    torch.testing.assert_close(from_features.logits, from_pixels.logits)
    torch.testing.assert_close(from_half.pose_logits, from_pixels.pose_logits, atol=0.05, rtol=0.05)


def test_the_head_computes_in_float32_under_autocast_and_in_half_precision(model, processor):
    batch = batch_of(processor, ["car <pose>."])
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**batch, poses=POSES[:1])
    assert output.pose_logits.dtype == torch.float32
    hidden = torch.randn(4, 32)
    torch.testing.assert_close(model.pose_head(hidden.bfloat16()), model.pose_head(hidden.bfloat16().float()))


def test_logits_are_kept_only_where_asked_for(model, processor):
    batch = batch_of(processor, ["car <pose>."])
    del batch["labels"]
    with torch.no_grad():
        every, last = model(**batch), model(**batch, logits_to_keep=1)
    assert last.logits.shape[1] == 1
    torch.testing.assert_close(last.logits[:, 0], every.logits[:, -1])


def test_transformers_own_generate_works(model, processor):
    ids, _ = processor.encode([user_message("Which way?", images=1)])
    inputs = processor.pad([ids], "left")
    generated = model.generate(**inputs, pixel_values=pixels_of(1), max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert generated.shape == (1, len(ids) + 4)
