"""Branch and bound for the best names of a trie: which nodes to compute next, and when no better name can be left.

One image at a time and without a model: ``decoding`` runs the nodes of many searches in one pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heappush

import numpy as np

from .trie import Branches


class Search:
    """The search for an image's best ``top_k`` names.

    A node is known when its path's log-probability is, which the states of its ancestors give; it is computed when
    its own state is. A known inner node that is not computed is open: names may lie below it that are as good as its
    bound. ``required``: names whose path is computed whatever their score.
    """

    def __init__(self, branches: Branches, root_scores: np.ndarray, top_k: int, required: Iterable[int] = ()):
        nodes, names = len(branches.trie.tokens), len(branches.trie.ends)
        self.branches, self.top_k, self.required = branches, min(top_k, names), list(required)
        self.log_probabilities = np.full(names, np.nan)
        """(N,): of the names found so far, NaN for others."""
        self.scores = np.full(names, -np.inf)
        self.columns = np.full(nodes, -1)
        """(T,): where each computed node lies in the cache, −1 when it does not."""
        self.computed = np.zeros(nodes, dtype=bool)
        self._sums = np.zeros(nodes)
        self._bounds = np.full(nodes, -np.inf)  # of open nodes
        self._know(branches.children(-1), root_scores)

    def _know(self, nodes: np.ndarray, sums: np.ndarray) -> None:
        if not np.isfinite(sums).all():
            raise ValueError("the model's log-probabilities are not finite numbers")
        branches = self.branches
        self._sums[nodes] = sums
        ending = branches.name_at[nodes] >= 0
        names = branches.name_at[nodes[ending]]
        self.log_probabilities[names] = sums[ending]
        self.scores[names] = sums[ending] / branches.trie.divisors[names] - branches.trie.offsets[names]
        self._bounds[nodes[~ending]] = branches.best_score(nodes[~ending], sums[~ending])

    def best(self) -> np.ndarray:
        """The best ``top_k`` of the names found so far, best first."""
        order = np.argsort(-self.scores, kind="stable")[: self.top_k]
        return order[np.isfinite(self.scores[order])]

    def next_nodes(self, budget: int) -> np.ndarray:
        """The nodes to compute next, about ``budget`` of them, every one with those ancestors that are not in the
        cache; none when the best names are certain and their states computed."""
        best = self.best()
        chosen: set[int] = set()
        for name in {*self.required, *best.tolist()}:
            end = int(self.branches.trie.ends[name])
            if not self.computed[end]:
                self._add(chosen, end)
        floor = self.scores[best[-1]] if len(best) == self.top_k else -np.inf
        open_nodes = np.flatnonzero(self._bounds > floor)
        if len(open_nodes) > budget:
            open_nodes = open_nodes[np.argpartition(-self._bounds[open_nodes], budget)[:budget]]
        self._look_ahead(chosen, open_nodes, budget)
        return np.array(sorted(chosen), dtype=np.int64)

    def _look_ahead(self, chosen: set[int], open_nodes: np.ndarray, budget: int) -> None:
        """Choose open nodes, best first, together with the nodes below them, so that few passes are needed.

        What is below a node is taken to share its bound evenly; ends, whose states only the best names need, are
        chosen for as many names as are wanted.
        """
        heap = [(-self._bounds[node], int(node)) for node in open_nodes]
        heapify(heap)
        ends_left = self.top_k
        while heap and len(chosen) < budget:
            priority, node = heappop(heap)
            is_end = self.branches.name_at[node] >= 0
            if is_end and not ends_left:
                continue
            ends_left -= is_end
            self._add(chosen, node)
            children = self.branches.children(node)
            for child in children.tolist():
                heappush(heap, (priority + np.log(len(children)), child))

    def _add(self, chosen: set[int], node: int) -> None:
        while node >= 0 and self.columns[node] < 0 and node not in chosen:
            chosen.add(node)
            node = int(self.branches.trie.parents[node])

    def seen(self, nodes: np.ndarray, first_column: int, width: int) -> np.ndarray:
        """Give these nodes the columns from ``first_column`` on; returns the mask (n, width) of what each sees: its
        ancestors and itself."""
        self.columns[nodes] = np.arange(first_column, first_column + len(nodes))
        mask = np.zeros((len(nodes), width), dtype=bool)
        for row, node in zip(mask, nodes, strict=True):
            row[self.columns[self.branches.trie.path(node)]] = True
        return mask

    def unscored(self, nodes: np.ndarray) -> np.ndarray:
        """Those of the nodes about to be computed whose children are not known yet."""
        return nodes[~self.computed[nodes] & (self.branches.name_at[nodes] < 0)]

    def learn(self, nodes: np.ndarray, inner: np.ndarray, child_scores: Sequence[np.ndarray]) -> None:
        """Take in a pass over ``nodes``: for each of ``unscored(nodes)`` the log-probabilities of its children."""
        self.computed[nodes] = True
        for node, scores in zip(inner, child_scores, strict=True):
            self._bounds[node] = -np.inf
            self._know(self.branches.children(node), self._sums[node] + scores)
            # Parents come before their children: a child that is in this pass too is closed again when its turn comes.

    def forget_columns(self) -> None:
        """The cache holds the prompt alone again; what is known stays known."""
        self.columns[:] = -1

    def result(self) -> tuple[np.ndarray, float]:
        """Probabilities (N,) of the names found and an upper bound on the probability of all others together.

        Both sum to 1: the names that were found may be likelier, by at most what the bound says of the others.
        """
        trie = self.branches.trie
        open_nodes = np.flatnonzero(self._bounds > -np.inf)
        left = self.branches.log_mass(open_nodes, self._sums[open_nodes])
        logits = np.append(self.scores / trie.temperature, np.logaddexp.reduce(left, initial=-np.inf))
        weights = np.exp(logits - logits.max())
        weights /= weights.sum()
        return weights[:-1], float(weights[-1])
