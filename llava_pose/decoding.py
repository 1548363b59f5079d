"""Closed-list names out of a language model's hidden states.

Knows token ids, hidden states and a cache, and no vision-language family.

All candidate names are scored in one further pass on the prefilled cache: their tokens form a trie, each node sees the
prefix and its own ancestors (a 4-D attention mask) at the position its depth gives it, and a name's score is the sum
of the log-probabilities along its path, up to and including the ``<pose>`` that ends it, so that "train" and
"train station" compare exactly. The same pass yields the hidden state at each name's ``<pose>``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch


@dataclass(frozen=True)
class NameTrie:
    """Token sequences with their common beginnings shared.

    tokens, parents, depths (T,): each node's token, its parent's index (−1 at a root) and its depth (0 at a root),
    parents before children; ends (N,): the node at which each of the N sequences ends; paths (N, T) bool: the nodes
    on each sequence's way; ancestors (T, T) bool: row i holds node i and the nodes above it.
    """

    tokens: torch.Tensor
    parents: torch.Tensor
    depths: torch.Tensor
    ends: torch.Tensor
    paths: torch.Tensor
    ancestors: torch.Tensor

    @classmethod
    def build(cls, sequences: Sequence[Sequence[int]]) -> NameTrie:
        """The trie of N token sequences. Raises ValueError for an empty sequence or one that is the beginning of
        another or the same as another: their scores would not compare."""
        index: dict[tuple[int, ...], int] = {}
        ends = []
        for sequence in sequences:
            if not sequence:
                raise ValueError("a name has no tokens")
            for length in range(1, len(sequence) + 1):
                index.setdefault(tuple(sequence[:length]), len(index))
            ends.append(index[tuple(sequence)])
        parents = [index.get(path[:-1], -1) for path in index]
        inner = set(parents)
        if len(set(ends)) < len(ends) or inner & set(ends):
            raise ValueError("a name's tokens repeat another's or begin it")
        ancestors = torch.eye(len(index), dtype=torch.bool)
        for node, parent in enumerate(parents):
            if parent >= 0:
                ancestors[node] |= ancestors[parent]
        return cls(
            tokens=torch.tensor([path[-1] for path in index]),
            parents=torch.tensor(parents),
            depths=torch.tensor([len(path) - 1 for path in index]),
            ends=torch.tensor(ends),
            paths=ancestors[ends],
            ancestors=ancestors,
        )

    def to(self, device: torch.device) -> NameTrie:
        """The same trie on a device."""
        return NameTrie(**{name: value.to(device) for name, value in vars(self).items()})


class Prefill(NamedTuple):
    """A batch of prompts run once: their cache, the mask (B, P) of real positions, each prompt's length (B,), and
    the hidden state (B, H) that predicts the first new token."""

    cache: Any
    attention_mask: torch.Tensor
    lengths: torch.Tensor
    last_hidden: torch.Tensor


class NameScores(NamedTuple):
    """log_probabilities (B, N) of N names for B prompts, and pose_hidden (B, N, H), the state at each one's end."""

    log_probabilities: torch.Tensor
    pose_hidden: torch.Tensor


def score_names(model: Any, prefill: Prefill, trie: NameTrie) -> NameScores:
    """Score every name of the trie after every prompt, in one pass. The cache is extended: do not use it again."""
    batch, nodes = len(prefill.lengths), len(trie.tokens)
    trie = trie.to(prefill.last_hidden.device)
    outputs = model.backbone(
        input_ids=trie.tokens.expand(batch, nodes),
        position_ids=prefill.lengths[:, None] + trie.depths[None, :],
        attention_mask=_tree_mask(prefill.attention_mask, trie.ancestors, prefill.last_hidden.dtype),
        past_key_values=prefill.cache,
        use_cache=True,
    )
    hidden = outputs.last_hidden_state
    # Row 0 is the prompt's last state, which predicts the roots; row i + 1 is node i, which predicts its children.
    states = torch.cat([prefill.last_hidden[:, None], hidden], 1)
    rows, where = torch.unique(trie.parents + 1, return_inverse=True)
    vocabulary = model.lm_head(states[:, rows]).float()
    log_probabilities = vocabulary.log_softmax(-1)
    node_scores = log_probabilities[:, where, trie.tokens]
    # A plain sum, since an autocast would take a matrix product in half precision.
    return NameScores((node_scores[:, None] * trie.paths).sum(-1), hidden[:, trie.ends])


def _tree_mask(prefix: torch.Tensor, ancestors: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """An additive mask (B, 1, T, P + T): a node sees the prompt's real positions, its ancestors and itself."""
    batch, nodes = len(prefix), len(ancestors)
    seen = torch.cat([prefix.bool()[:, None, :].expand(batch, nodes, -1), ancestors[None].expand(batch, -1, -1)], -1)
    mask = torch.zeros(seen.shape, dtype=dtype, device=prefix.device)
    return mask.masked_fill(~seen, torch.finfo(dtype).min)[:, None]
