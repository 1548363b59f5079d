"""Branch and bound against looking at every name, on random tries and random probabilities, without a model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava_pose.search import Search
from llava_pose.trie import SCORINGS, NameTrie
from tests.test_trie import random_scores, sequences_strategy, temperatures


def run(search, steps, budgets):
    """Answer the search's questions from a table; returns how many nodes it asked for in each pass."""
    trie, asked = search.branches.trie, []
    for budget in budgets:
        nodes = search.next_nodes(budget)
        if not len(nodes):
            return asked
        asked.append(len(nodes))
        seen = search.seen(nodes, sum(asked) - len(nodes), sum(asked))
        for node, row in zip(nodes, seen, strict=True):
            assert sorted(np.flatnonzero(row)) == sorted(search.columns[trie.path(node)])
        inner = search.unscored(nodes)
        search.learn(nodes, inner, [steps[search.branches.children(node)] for node in inner])
    raise AssertionError("the search does not end")


@given(
    sequences_strategy,
    st.sampled_from(SCORINGS),
    temperatures,
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(0, 999),
)
def test_the_best_names_are_those_of_the_whole_table(sequences, scoring, temperature, top_k, budget, seed):
    trie = NameTrie.build(sequences)
    trie = trie.scored(scoring, temperature, np.random.default_rng(seed).uniform(-9, 0, len(sequences)))
    steps, sums = random_scores(trie, seed)
    required = [seed % len(sequences)]
    search = Search(trie.branches, steps[trie.branches.children(-1)], top_k, required)
    run(search, steps, [budget] * 200)

    scores = trie.scores(sums[trie.ends])
    best = np.argsort(-scores)[:top_k]
    assert search.best().tolist() == best.tolist()
    assert search.computed[trie.ends[best]].all(), "their poses can be read"
    assert search.computed[trie.ends[required]].all()
    found = np.isfinite(search.log_probabilities)
    np.testing.assert_allclose(search.log_probabilities[found], sums[trie.ends][found])

    probabilities, unexplored = search.result()
    true = trie.probabilities(scores)
    assert probabilities.sum() + unexplored == pytest.approx(1)
    assert unexplored >= true[~found].sum() - 1e-9
    assert (probabilities <= true + 1e-9).all() and (probabilities + unexplored >= true - 1e-9).all()


def test_a_clear_winner_leaves_most_of_the_trie_out():
    trie = NameTrie.build([[name, 1000 + name, 0] for name in range(1, 201)])
    steps = np.full(len(trie.tokens), -8.0)
    steps[trie.path(trie.ends[77])] = -0.01
    search = Search(trie.branches, steps[trie.branches.children(-1)], 1)
    assert run(search, steps, [8] * 9) == [8]
    assert search.best().tolist() == [77]
    assert search.result()[1] < 200 * np.exp(-8)


def test_nodes_whose_ancestors_have_left_the_cache_bring_them_again():
    trie = NameTrie.build([[1, 2, 3, 0], [1, 2, 4, 0], [5, 0]])
    steps, sums = random_scores(trie, 3)
    search = Search(trie.branches, steps[trie.branches.children(-1)], 3)
    asked = set()
    for _ in range(20):
        nodes = search.next_nodes(1)
        if not len(nodes):
            break
        assert {int(trie.parents[node]) for node in nodes} <= {-1, *nodes.tolist()}
        search.seen(nodes, 0, len(nodes))
        inner = search.unscored(nodes)
        assert not asked & set(inner.tolist()), "what is known is not asked again"
        asked |= set(inner.tolist())
        search.learn(nodes, inner, [steps[search.branches.children(node)] for node in inner])
        search.forget_columns()
    np.testing.assert_allclose(search.log_probabilities, sums[trie.ends])


def test_probabilities_that_are_no_numbers_are_refused():
    trie = NameTrie.build([[1, 0], [2, 0]])
    with pytest.raises(ValueError, match="not finite"):
        Search(trie.branches, np.array([np.nan, -1.0]), 1)
