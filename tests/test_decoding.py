"""Names scored through a trie, whole or by branch and bound, against the obvious slow judge."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from llava_pose import checkpoint, decoding, taxonomy
from llava_pose.decoding import all_names, best_names, name_states, score_names
from llava_pose.engine import Engine
from llava_pose.processing import user_message
from llava_pose.trie import NameTrie
from tests.released import noise
from tests.test_trie import sequences_of

CATEGORIES = ["car", "bicycle", "bicycle_built_for_two", "bus", "sofa", "diningtable", "boat", "train", "train_station"]
QUESTIONS = [
    "What is this object, and how is it posed?",
    "What?",
    "Tell me at some length which of the many objects of the world is to be seen in this picture, and how it is posed.",
]
SAMPLES = Path(checkpoint.__file__).parent / "assets" / "samples"
NONE_GIVEN = np.zeros((1, 0), dtype=int)


@pytest.fixture(params=["llama", "small"])
def engine(request):
    return Engine(*request.getfixturevalue("released_pair" if request.param == "llama" else "tiny_pair"))


def messages_of(question):
    return [user_message(question, images=1)]


def pixels_for(engine, count):
    side = 32 if engine.model.config.vision_config.model_type == "clip_vision_model" else 128
    return noise(engine.processor, count, side)


def prefill(engine, questions, pixels):
    with torch.inference_mode():
        return engine.prefill([messages_of(question) for question in questions], pixels)


@torch.no_grad()
def slow_judge(engine, question, pixels, sequences):
    """One whole forward pass for each name, no cache: its log-probability and the state at its last token."""
    prompt = engine.processor.encode(messages_of(question))[0].tolist()
    scores, states = [], []
    for sequence in sequences:
        ids = torch.tensor([[*prompt, *sequence]])
        output = engine.model(input_ids=ids, attention_mask=torch.ones_like(ids), **pixels.tensors)
        log_probabilities = output.logits[0].log_softmax(-1)
        steps = [log_probabilities[len(prompt) - 1 + i, token] for i, token in enumerate(sequence)]
        scores.append(torch.stack(steps).sum())
        states.append(output.last_hidden_state[0, -1])
    return torch.stack(scores), torch.stack(states)


def sharpened(engine, factor):
    """The same model, surer of every next token by this factor."""
    model = copy.deepcopy(engine.model)
    with torch.no_grad():
        model.lm_head.weight *= factor
    return Engine(model, engine.processor)


@torch.inference_mode()
def test_names_in_a_trie_score_as_one_pass_for_each_name(engine):
    trie = engine.name_trie(CATEGORIES)
    sequences = sequences_of(trie)
    assert all(sequence[-1] == engine.processor.pose_token_id for sequence in sequences)
    pixels, everyone = pixels_for(engine, 2), np.arange(len(CATEGORIES))
    state = prefill(engine, [QUESTIONS[0]] * 2, pixels)
    scores = score_names(engine.model, state, trie)
    states = name_states(engine.model, state, trie, np.stack([everyone, everyone[::-1]]))
    for row in range(2):
        expected, expected_states = slow_judge(engine, QUESTIONS[0], pixels.select([row]), sequences)
        torch.testing.assert_close(scores[row], expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(states[row], expected_states.flip(0) if row else expected_states, rtol=0, atol=1e-4)
        assert scores[row].argsort().tolist() == expected.argsort().tolist()
    assert expected.std() > 0.1, "names that differ by more than the tolerance"


def test_a_name_that_begins_another_is_scored_up_to_its_own_pose(engine):
    for categories in (["bicycle", "bicycle_built_for_two"], ["train", "train_station"]):
        trie = engine.name_trie(categories)
        short, long = sequences_of(trie)
        assert short[:-1] == long[: len(short) - 1], "one name begins the other"
        assert len(trie.tokens) == len(long) + 1, "and what they share is kept once"


@torch.inference_mode()
def test_prompts_of_different_lengths_in_a_batch_score_as_alone(engine):
    trie, pixels = engine.name_trie(CATEGORIES), pixels_for(engine, 3)
    for find in (all_names, best_names):
        together = find(engine.model, prefill(engine, QUESTIONS, pixels), trie, 2, np.array([[0], [1], [2]]))
        for row, question in enumerate(QUESTIONS):
            expected, states = slow_judge(engine, question, pixels.select([row]), sequences_of(trie))
            order = expected.argsort(descending=True)[:2]
            assert together.names[row].tolist() == order.tolist()
            torch.testing.assert_close(together.states[row], states[torch.tensor([*order, row])], rtol=0, atol=1e-4)
            found = np.isfinite(together.log_probabilities[row])
            np.testing.assert_allclose(together.log_probabilities[row][found], expected[found], rtol=0, atol=1e-4)


@pytest.mark.parametrize("factor", [0.3, 3.0])
@pytest.mark.parametrize("scoring", ["sum", "mean", "prior"])
@torch.inference_mode()
def test_branch_and_bound_finds_what_the_whole_pass_finds(engine, scoring, factor):
    engine = sharpened(engine, factor)
    trie = engine.name_trie(CATEGORIES, scoring, temperature=1.5)
    pixels = pixels_for(engine, 4)
    given = np.array([[3], [1], [4], [1]])
    whole = all_names(engine.model, prefill(engine, QUESTIONS[:1] * 4, pixels), trie, 3, given)
    found = best_names(engine.model, prefill(engine, QUESTIONS[:1] * 4, pixels), trie, 3, given)
    assert_same_best(found, whole)
    assert whole.probabilities.sum(1) == pytest.approx(1) and (whole.unexplored == 0).all()


def assert_same_best(found, whole):
    assert found.names.tolist() == whole.names.tolist()
    torch.testing.assert_close(found.states, whole.states, rtol=0, atol=1e-4)
    reached = np.isfinite(found.log_probabilities)
    np.testing.assert_allclose(found.log_probabilities[reached], whole.log_probabilities[reached], rtol=0, atol=1e-4)
    left = np.where(reached, 0, whole.probabilities).sum(1)
    # A probability differs by at most twice what the log-probabilities behind it do (float32, in another order).
    rounding = 2 * np.abs(found.log_probabilities[reached] - whole.log_probabilities[reached]).max() + 1e-7
    assert (found.unexplored >= left - rounding).all()
    assert (found.probabilities <= whole.probabilities + rounding).all()
    assert (found.probabilities + found.unexplored[:, None] >= whole.probabilities - rounding).all()


tries = st.lists(
    st.lists(st.integers(3, 9), max_size=4).map(lambda tokens: [*tokens, 2]), min_size=1, max_size=30, unique_by=tuple
).map(NameTrie.build)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trie=tries, factor=st.sampled_from([0.1, 1.0, 10.0]), top_k=st.integers(1, 4), seed=st.integers(0, 999))
@torch.inference_mode()
def test_branch_and_bound_is_exact_on_any_trie(released_pair, trie, factor, top_k, seed):
    engine = sharpened(Engine(*released_pair), factor)
    pixels = noise(engine.processor, 2, seed=seed)
    given = np.full((2, 1), seed % len(trie.ends))
    whole = all_names(engine.model, prefill(engine, QUESTIONS[:2], pixels), trie, top_k, given)
    found = best_names(engine.model, prefill(engine, QUESTIONS[:2], pixels), trie, top_k, given)
    np.testing.assert_allclose(
        np.take_along_axis(whole.log_probabilities, found.names, 1),
        np.take_along_axis(whole.log_probabilities, whole.names, 1),
        atol=1e-4,
        err_msg="the same names, or others as good",
    )
    if (found.names == whole.names).all():
        assert_same_best(found, whole)


@pytest.mark.parametrize("find", [all_names, best_names])
@torch.inference_mode()
def test_a_trie_larger_than_the_cache_may_hold_is_computed_in_parts(engine, find, monkeypatch):
    engine = sharpened(engine, 0.3)
    trie, pixels = engine.name_trie(CATEGORIES), pixels_for(engine, 2)
    given = np.array([[2], [7]])
    whole = all_names(engine.model, prefill(engine, QUESTIONS[:2], pixels), trie, 2, given)
    widths = []
    tree_pass = decoding._tree_pass

    def watched(model, state, trie, nodes, seen):
        widths.append(max(row.shape[1] for row in seen))
        return tree_pass(model, state, trie, nodes, seen)

    monkeypatch.setattr(decoding, "NODES_AT_ONCE", 5)
    monkeypatch.setattr(decoding, "MOST_NODES", 4)
    monkeypatch.setattr(decoding, "FIRST_NODES", 3)
    monkeypatch.setattr(decoding, "LOGITS_AT_ONCE", 1)
    monkeypatch.setattr(decoding, "_tree_pass", watched)
    parts = find(engine.model, prefill(engine, QUESTIONS[:2], pixels), trie, 2, given)
    assert len(widths) > 3
    assert max(widths) <= 5 + 4 + 2 * int(trie.depths.max() + 1), "what is held at a time stays bounded"
    assert_same_best(parts, whole)


def test_a_model_that_has_learnt_its_names_computes_few_of_them():
    engine = Engine(*checkpoint.load(checkpoint.EMBEDDED))
    trie = engine.name_trie(taxonomy.categories())
    with Image.open(SAMPLES / "car.jpg") as picture:
        (whole,) = engine.name([picture], trie)
        (found,) = engine.name([picture], trie, distribution=False)
    assert taxonomy.categories()[found.index] == taxonomy.categories()[whole.index] == "car"
    assert found.nodes < 30 < whole.nodes / 10
    missing = whole.probabilities[found.index] - found.probabilities[found.index]
    assert 0 <= missing <= found.unexplored < 0.01, "a lower bound, by no more than was left unexplored"


def test_scores_are_float32_under_autocast(engine):
    pixels, trie = pixels_for(engine, 1), engine.name_trie(CATEGORIES)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        scores = score_names(engine.model, engine.prefill([messages_of(QUESTIONS[0])], pixels), trie)
    assert scores.dtype == torch.float32


@torch.inference_mode()
def test_the_order_of_the_names_does_not_matter(engine):
    pixels = pixels_for(engine, 1)

    def scores(categories):
        return score_names(engine.model, prefill(engine, QUESTIONS[:1], pixels), engine.name_trie(categories))[0]

    torch.testing.assert_close(scores(CATEGORIES), scores(CATEGORIES[::-1]).flip(0), rtol=0, atol=1e-4)
    torch.testing.assert_close(scores(CATEGORIES)[:1], scores(["car"]), rtol=0, atol=1e-4)


@torch.inference_mode()
def test_a_model_whose_scores_are_no_numbers_is_refused(released_pair):
    engine = sharpened(Engine(*released_pair), float("nan"))
    state = prefill(engine, QUESTIONS[:1], pixels_for(engine, 1))
    with pytest.raises(ValueError, match="not finite"):
        best_names(engine.model, state, engine.name_trie(CATEGORIES), 1, NONE_GIVEN)
