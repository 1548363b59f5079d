"""Names scored through a trie against the obvious slow judge."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llava_pose.decoding import NameTrie, score_names
from llava_pose.engine import Engine
from llava_pose.processing import user_message

CATEGORIES = ["car", "bicycle", "bicycle_built_for_two", "bus", "sofa", "diningtable", "boat", "aeroplane", "tvmonitor"]
QUESTIONS = [
    "What is this object, and how is it posed?",
    "What?",
    "Tell me at some length which of the many objects of the world is to be seen in this picture, and how it is posed.",
]


@pytest.fixture(params=["llama", "small"])
def engine(request):
    return Engine(*request.getfixturevalue("released_pair" if request.param == "llama" else "tiny_pair"))


def messages_of(question):
    return [user_message(question, images=1)]


def pixels_for(engine, count):
    side = 32 if engine.model.config.vision_config.model_type == "clip_vision_model" else 128
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def slow_judge(engine, question, pixels, sequences):
    """One whole forward pass for each name, no cache: its log-probability and the state at its last token."""
    prompt = engine.processor.encode(messages_of(question))[0].tolist()
    scores, states = [], []
    for sequence in sequences:
        ids = torch.tensor([[*prompt, *sequence]])
        output = engine.model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels[None])
        log_probabilities = output.logits[0].log_softmax(-1)
        steps = [log_probabilities[len(prompt) - 1 + i, token] for i, token in enumerate(sequence)]
        scores.append(torch.stack(steps).sum())
        states.append(output.last_hidden_state[0, -1])
    return torch.stack(scores), torch.stack(states)


def sequences_of(trie):
    """The token sequences read back from the trie's parents alone."""
    sequences = []
    for node in trie.ends.tolist():
        sequence = []
        while node >= 0:
            sequence.insert(0, int(trie.tokens[node]))
            node = int(trie.parents[node])
        sequences.append(sequence)
    return sequences


def test_names_in_a_trie_score_as_one_pass_for_each_name(engine):
    trie = engine.name_trie(CATEGORIES)
    sequences = sequences_of(trie)
    assert all(sequence[-1] == engine.processor.pose_token_id for sequence in sequences)
    pixels = pixels_for(engine, 2)
    with torch.inference_mode():
        scores = score_names(engine.model, engine.prefill([messages_of(QUESTIONS[0])] * 2, pixels), trie)
    for row in range(2):
        expected, states = slow_judge(engine, QUESTIONS[0], pixels[row], sequences)
        torch.testing.assert_close(scores.log_probabilities[row], expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(scores.pose_hidden[row], states, rtol=1e-4, atol=1e-4)
        assert scores.log_probabilities[row].argsort().tolist() == expected.argsort().tolist()
    assert expected.std() > 0.1, "names that differ by more than the tolerance"


def test_a_name_that_begins_another_is_scored_up_to_its_own_pose(engine):
    tokens = engine.name_trie(["bicycle", "bicycle_built_for_two"])
    short, long = sequences_of(tokens)
    assert short[:-1] == long[: len(short) - 1], "one name begins the other"
    assert len(tokens.tokens) == len(long) + 1, "and what they share is kept once"


def test_prompts_of_different_lengths_in_a_batch_score_as_alone(engine):
    trie, pixels = engine.name_trie(CATEGORIES), pixels_for(engine, 3)
    with torch.inference_mode():
        together = score_names(engine.model, engine.prefill([messages_of(q) for q in QUESTIONS], pixels), trie)
        for row, question in enumerate(QUESTIONS):
            prefill = engine.prefill([messages_of(question)], pixels[row : row + 1])
            alone = score_names(engine.model, prefill, trie)
            torch.testing.assert_close(together.log_probabilities[row], alone.log_probabilities[0], rtol=0, atol=1e-4)
            torch.testing.assert_close(together.pose_hidden[row], alone.pose_hidden[0], rtol=1e-4, atol=1e-4)


def test_scores_are_float32_under_autocast(engine):
    pixels, trie = pixels_for(engine, 1), engine.name_trie(CATEGORIES)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        scores = score_names(engine.model, engine.prefill([messages_of(QUESTIONS[0])], pixels), trie)
    assert scores.log_probabilities.dtype == torch.float32


def test_the_order_of_the_names_does_not_matter(engine):
    pixels = pixels_for(engine, 1)

    def scores(categories):
        with torch.inference_mode():
            prefill = engine.prefill([messages_of(QUESTIONS[0])], pixels)
            return score_names(engine.model, prefill, engine.name_trie(categories)).log_probabilities[0]

    torch.testing.assert_close(scores(CATEGORIES), scores(CATEGORIES[::-1]).flip(0), rtol=0, atol=1e-4)
    torch.testing.assert_close(scores(CATEGORIES)[:1], scores(["car"]), rtol=0, atol=1e-4)


sequences_strategy = st.lists(
    st.lists(st.integers(1, 4), min_size=0, max_size=4).map(lambda tokens: [*tokens, 0]),
    min_size=1,
    max_size=8,
    unique_by=tuple,
)


@given(sequences_strategy)
def test_a_trie_holds_its_sequences(sequences):
    trie = NameTrie.build(sequences)
    assert sequences_of(trie) == sequences
    assert len(trie.tokens) == len({tuple(s[:n]) for s in sequences for n in range(1, len(s) + 1)})
    for sequence, path in zip(sequences, trie.paths, strict=True):
        nodes = torch.where(path)[0]
        assert trie.tokens[nodes].tolist() == sequence
        assert trie.depths[nodes].tolist() == list(range(len(sequence)))
    assert all(parent < node for node, parent in enumerate(trie.parents.tolist()))


@pytest.mark.parametrize(
    "sequences, match",
    [
        ([[]], "no tokens"),
        ([[1, 0], [1, 0]], "repeat another's or begin it"),
        ([[1], [1, 2]], "repeat another's or begin it"),
        ([[1, 2], [1]], "repeat another's or begin it"),
    ],
)
def test_names_that_would_not_compare_are_refused(sequences, match):
    with pytest.raises(ValueError, match=match):
        NameTrie.build(sequences)
