"""Candidate names as a trie of tokens, how their scores compare, and the bounds that let a search leave names out.

A name's score is ``log-probability / divisor − offset``: the divisor is 1 for the plain sum and the number of tokens
for the mean; the offset is the name's log-probability without the image for the prior-corrected score, and 0 for the
others. Probabilities over the names are the softmax of the scores at a temperature.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

SCORINGS = ("sum", "mean", "prior")


@dataclass(frozen=True)
class NameTrie:
    """N token sequences with their common beginnings shared in T nodes, each node followed by all nodes below it.

    tokens, parents, depths (T,): each node's token, its parent (−1 at a root) and its depth (0 at a root); ends (N,):
    the node at which each sequence ends, which has nothing below it; divisors, offsets (N,) and temperature: see the
    module.
    """

    tokens: np.ndarray
    parents: np.ndarray
    depths: np.ndarray
    ends: np.ndarray
    divisors: np.ndarray
    offsets: np.ndarray
    temperature: float = 1.0

    @classmethod
    def build(cls, sequences: Sequence[Sequence[int]]) -> NameTrie:
        """The trie of N token sequences, scored by the plain sum.

        Raises ValueError for no sequence at all, an empty one, or one that is the beginning of another or the same as
        another: their scores would not compare.
        """
        index: dict[tuple[int, ...], int] = {}
        for sequence in sorted(tuple(sequence) for sequence in sequences):
            for length in range(1, len(sequence) + 1):
                index.setdefault(sequence[:length], len(index))
        if not index or not all(len(sequence) for sequence in sequences):
            raise ValueError("a name has no tokens" if len(sequences) else "no names")
        parents = np.array([index.get(path[:-1], -1) for path in index])
        ends = np.array([index[tuple(sequence)] for sequence in sequences])
        if len(np.unique(ends)) < len(ends) or np.isin(ends, parents).any():
            raise ValueError("a name's tokens repeat another's or begin it")
        return cls(
            tokens=np.array([path[-1] for path in index]),
            parents=parents,
            depths=np.array([len(path) - 1 for path in index]),
            ends=ends,
            divisors=np.ones(len(ends)),
            offsets=np.zeros(len(ends)),
        )

    def scored(self, scoring: str, temperature: float, prior: np.ndarray | None = None) -> NameTrie:
        """The same names scored by the "sum" or the "mean" of their tokens' log-probabilities, or by their sum less
        ``prior`` (N,), for "prior". Raises ValueError for another scoring or a temperature that is not positive."""
        if scoring not in SCORINGS:
            raise ValueError(f"scoring: {scoring!r} is none of {', '.join(SCORINGS)}")
        if not 0 < temperature < np.inf:
            raise ValueError(f"temperature: {temperature} is not a positive number")
        names = len(self.ends)
        divisors = self.depths[self.ends] + 1.0 if scoring == "mean" else np.ones(names)
        offsets = np.zeros(names) if scoring != "prior" or prior is None else np.asarray(prior, dtype=np.float64)
        return replace(self, divisors=divisors, offsets=offsets, temperature=temperature)

    def scores(self, log_probabilities: np.ndarray) -> np.ndarray:
        """The scores (…, N) of the names' log-probabilities (…, N)."""
        return log_probabilities / self.divisors - self.offsets

    def probabilities(self, scores: np.ndarray) -> np.ndarray:
        """Probabilities (…, N) over the names, of their scores (…, N)."""
        logits = scores / self.temperature
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True)

    def passes(self, limit: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Parts of the trie's inner nodes, of about ``limit`` nodes, which together hold every one of them.

        Yields nodes (n,) with every node's ancestors among them, and a mask (n,): those that this part is there for,
        rather than for being above one of them.
        """
        inner = np.setdiff1d(np.arange(len(self.tokens)), self.ends)
        for start in range(0, len(inner), limit):
            part = inner[start : start + limit]
            # Below each other without a gap, so what is above any of them is among them or above the first.
            above = self.path(part[0])[:-1]
            yield np.concatenate([above, part]), np.arange(len(above) + len(part)) >= len(above)

    @property
    def inner_nodes(self) -> int:
        """The number of nodes that have others below them: those whose states give every name's score."""
        return len(self.tokens) - len(self.ends)

    @cached_property
    def branches(self) -> Branches:
        """What lies below each node."""
        return Branches(self)

    def path(self, node: int) -> np.ndarray:
        """The nodes from the root's child down to this one."""
        nodes = [int(node)]
        while (parent := int(self.parents[nodes[-1]])) >= 0:
            nodes.append(parent)
        return np.array(nodes[::-1])


class Branches:
    """What lies below each node of a trie, and how good and how likely it can be."""

    def __init__(self, trie: NameTrie):
        nodes, parents = len(trie.tokens), trie.parents
        self.trie = trie
        # Grouped by parent: the children of node v are at starts[v + 1] to starts[v + 2].
        self._order = np.argsort(parents, kind="stable")
        self._starts = np.searchsorted(parents[self._order], np.arange(-1, nodes + 1))
        self.name_at = np.full(nodes, -1)
        self.name_at[trie.ends] = np.arange(len(trie.ends))
        self._names, self._divisor, self._offset = np.zeros(nodes), np.zeros(nodes), np.full(nodes, np.inf)
        self._names[trie.ends], self._divisor[trie.ends], self._offset[trie.ends] = 1, trie.divisors, trie.offsets
        for depth in range(int(trie.depths.max()), 0, -1):
            here = np.flatnonzero(trie.depths == depth)
            np.add.at(self._names, parents[here], self._names[here])
            np.maximum.at(self._divisor, parents[here], self._divisor[here])
            np.minimum.at(self._offset, parents[here], self._offset[here])

    def children(self, node: int) -> np.ndarray:
        """The children of a node; the roots for −1."""
        return self._order[self._starts[node + 1] : self._starts[node + 2]]

    def best_score(self, nodes: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """The score that no name below these nodes exceeds, of the log-probability of each node's path.

        A name's log-probability never exceeds its beginning's. Divided by fewer tokens it is further below zero.
        """
        return sums / self._divisor[nodes] - self._offset[nodes]

    def log_mass(self, nodes: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """The logarithm of what the names below these nodes add, at most, to the sum of exp(score / temperature).

        Names that begin alike share the probability p of their beginning. With t the temperature times the largest
        divisor among them, each adds at most its probability to the power 1/t; the sum of n such powers is at most
        p^(1/t) for t ≤ 1 and, by concavity, n^(1 − 1/t) p^(1/t) for t > 1.
        """
        power = 1 / (self.trie.temperature * self._divisor[nodes])
        shared = np.maximum(1 - power, 0) * np.log(self._names[nodes])
        return shared + sums * power - self._offset[nodes] / self.trie.temperature
