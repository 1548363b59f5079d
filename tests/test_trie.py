"""Tries of token sequences, and the bounds by which a search leaves names out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_pose.trie import SCORINGS, NameTrie

sequences_strategy = st.lists(
    st.lists(st.integers(1, 4), min_size=0, max_size=4).map(lambda tokens: [*tokens, 0]),
    min_size=1,
    max_size=12,
    unique_by=tuple,
)
temperatures = st.sampled_from([0.3, 1.0, 2.5])


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


def random_scores(trie, seed):
    """A log-probability for each node given its parent, of a model that knows other tokens too, and each path's sum."""
    rng = np.random.default_rng(seed)
    steps = np.zeros(len(trie.tokens))
    for parent in {-1, *trie.parents.tolist()}:
        children = np.flatnonzero(trie.parents == parent)
        logits = rng.normal(0, 4, len(children) + 1)
        steps[children] = (logits - np.logaddexp.reduce(logits))[:-1]
    sums = np.array([steps[trie.path(node)].sum() for node in range(len(steps))])
    return steps, sums


@given(sequences_strategy)
def test_a_trie_holds_its_sequences_in_their_order(sequences):
    trie = NameTrie.build(sequences)
    assert sequences_of(trie) == sequences
    assert len(trie.tokens) == len({tuple(s[:n]) for s in sequences for n in range(1, len(s) + 1)})
    for sequence, end in zip(sequences, trie.ends, strict=True):
        path = trie.path(end)
        assert trie.tokens[path].tolist() == sequence
        assert trie.depths[path].tolist() == list(range(len(sequence)))


@given(sequences_strategy)
def test_children_are_the_nodes_that_name_their_parent(sequences):
    trie = NameTrie.build(sequences)
    for node in range(-1, len(trie.tokens)):
        assert trie.branches.children(node).tolist() == np.flatnonzero(trie.parents == node).tolist()


@given(sequences_strategy, st.integers(1, 6))
def test_passes_hold_every_inner_node_once_with_all_its_ancestors(sequences, limit):
    trie = NameTrie.build(sequences)
    own_nodes = []
    for nodes, own in trie.passes(limit):
        assert (np.diff(nodes) > 0).all()
        assert own.sum() <= limit
        assert {int(trie.parents[node]) for node in nodes} <= {-1, *nodes.tolist()}
        own_nodes += nodes[own].tolist()
    assert sorted(own_nodes) == sorted(set(range(len(trie.tokens))) - set(trie.ends.tolist()))


@given(sequences_strategy, st.sampled_from(SCORINGS), temperatures, st.integers(0, 99))
def test_no_name_is_better_or_likelier_than_what_is_above_it_allows(sequences, scoring, temperature, seed):
    trie = NameTrie.build(sequences)
    prior = np.random.default_rng(seed).uniform(-9, 0, len(sequences))
    trie = trie.scored(scoring, temperature, prior)
    _, sums = random_scores(trie, seed)
    scores = trie.scores(sums[trie.ends])
    for node in range(len(trie.tokens)):
        below = [name for name, end in enumerate(trie.ends) if node in trie.path(end)]
        where = np.array([node])
        assert trie.branches.best_score(where, sums[where])[0] >= scores[below].max() - 1e-9
        mass = np.exp(scores[below] / temperature).sum()
        assert np.exp(trie.branches.log_mass(where, sums[where])[0]) >= mass * (1 - 1e-9)


def test_the_scores_are_the_sum_the_mean_or_the_sum_less_the_prior():
    trie = NameTrie.build([[1, 0], [1, 2, 0]])
    log_probabilities, prior = np.array([-2.0, -3.0]), np.array([-1.0, -5.0])
    np.testing.assert_allclose(trie.scored("sum", 1.0).scores(log_probabilities), [-2, -3])
    np.testing.assert_allclose(trie.scored("mean", 1.0).scores(log_probabilities), [-1, -1])
    np.testing.assert_allclose(trie.scored("prior", 1.0, prior).scores(log_probabilities), [-1, 2])


def test_a_temperature_divides_the_scores_before_the_softmax():
    trie = NameTrie.build([[1, 0], [2, 0]])
    scores = np.array([np.log(9.0), 0.0])
    np.testing.assert_allclose(trie.probabilities(scores), [0.9, 0.1])
    np.testing.assert_allclose(trie.scored("sum", 2.0).probabilities(scores), [0.75, 0.25])


@pytest.mark.parametrize(
    "sequences, match",
    [
        ([], "no names"),
        ([[]], "no tokens"),
        ([[1, 0], [1, 0]], "repeat another's or begin it"),
        ([[1], [1, 2]], "repeat another's or begin it"),
        ([[1, 2], [1]], "repeat another's or begin it"),
    ],
)
def test_names_that_would_not_compare_are_refused(sequences, match):
    with pytest.raises(ValueError, match=match):
        NameTrie.build(sequences)


@pytest.mark.parametrize("scoring, temperature", [("best", 1.0), ("sum", 0.0), ("sum", float("nan"))])
def test_scorings_and_temperatures_that_mean_nothing_are_refused(scoring, temperature):
    with pytest.raises(ValueError, match=r"none of|not a positive number"):
        NameTrie.build([[1]]).scored(scoring, temperature)
