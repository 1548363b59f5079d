"""Closed-list names out of a language model's hidden states.

Knows token ids, hidden states and a cache, and no vision-language family.

All candidate names are scored on the prefilled cache: their tokens form a trie, each node sees the prefix and its own
ancestors (a 4-D attention mask) at the position its depth gives it, and a name's log-probability is the sum along its
path, up to and including the ``<pose>`` that ends it, so that "train" and "train station" compare exactly. A node's
state says how likely its children are, so the nodes that end names are computed only where a pose is to be read.

``score_names`` gives every name's log-probability; ``best_names`` only the best names and their states, exactly, and
leaves the rest of the trie out (branch and bound, see ``search``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from .search import Search
from .trie import NameTrie

NODES_AT_ONCE = 1024
"""Trie nodes of one image that are in the cache at a time: bounds the memory of a list of any length."""

FIRST_NODES, MOST_NODES = 8, 128
"""Nodes of each image in the first pass of a search, doubled from pass to pass up to the second number. Eight cost
hardly more than one and are mostly enough for a model that is fairly sure; where it is not, passes must grow."""

LOGITS_AT_ONCE = 2**25
"""Vocabulary logits held at a time."""


def nodes_at_once(trie: NameTrie) -> int:
    """The tokens that scoring these names adds to each prompt: what ``loading.batches_by_tokens`` needs to know."""
    return min(len(trie.tokens), NODES_AT_ONCE + MOST_NODES)


class Prefill(NamedTuple):
    """A batch of prompts run once: their cache, the mask (B, P) of real positions, each prompt's length (B,), and
    the hidden state (B, H) that predicts the first new token."""

    cache: Any
    attention_mask: torch.Tensor
    lengths: torch.Tensor
    last_hidden: torch.Tensor


class Ranking(NamedTuple):
    """The best of N names after each of B prompts.

    names (B, K): best first; states (B, K + G, H): the hidden states at the end of each of ``names`` and then of the
    names that were given; log_probabilities (B, N): NaN where a name was never reached; probabilities (B, N): 0 where
    it was not, and lower bounds where any was not; unexplored (B,): an upper bound on the probability of all names
    never reached together; nodes (B,): how many nodes were computed.
    """

    names: np.ndarray
    states: torch.Tensor
    log_probabilities: np.ndarray
    probabilities: np.ndarray
    unexplored: np.ndarray
    nodes: np.ndarray


def score_names(model: Any, prefill: Prefill, trie: NameTrie) -> torch.Tensor:
    """The log-probability (B, N) float32 of every name of the trie after every prompt.

    One pass for each ``NODES_AT_ONCE`` nodes. The cache holds the prompts alone again afterwards.
    """
    batch, device = len(prefill.lengths), prefill.last_hidden.device
    branches = trie.branches
    scores = torch.zeros(batch, len(trie.tokens), dtype=torch.float32, device=device)
    roots = branches.children(-1)
    scores[:, roots] = _child_scores(model, prefill.last_hidden[:, None], [trie.tokens[roots]])
    for nodes, own in trie.passes(NODES_AT_ONCE):
        hidden = _tree_pass(model, prefill, trie, [nodes] * batch, [_sees(trie, nodes)] * batch)
        prefill.cache.crop(-len(nodes))
        children = [branches.children(node) for node in nodes[own]]
        found = _child_scores(model, hidden[:, torch.from_numpy(own).to(device)], [trie.tokens[c] for c in children])
        scores[:, np.concatenate(children)] = found
    for depth in range(1, int(trie.depths.max()) + 1):
        here = np.flatnonzero(trie.depths == depth)
        scores[:, here] += scores[:, trie.parents[here]]
    return scores[:, trie.ends]


def name_states(model: Any, prefill: Prefill, trie: NameTrie, names: np.ndarray) -> torch.Tensor:
    """The hidden states (B, K, H) at the end of K names for each of B prompts, names (B, K), in one pass over their
    paths. The cache holds the prompts alone again afterwards."""
    paths = [[trie.path(end) for end in ends] for ends in trie.ends[names]]
    nodes = [np.unique(np.concatenate(row)) for row in paths]
    hidden = _tree_pass(model, prefill, trie, nodes, [_sees(trie, row) for row in nodes])
    prefill.cache.crop(-max(len(row) for row in nodes))
    columns = np.stack([np.searchsorted(row, ends) for row, ends in zip(nodes, trie.ends[names], strict=True)])
    return hidden[torch.arange(len(names))[:, None], torch.from_numpy(columns)]


def all_names(model: Any, prefill: Prefill, trie: NameTrie, top_k: int, given: np.ndarray) -> Ranking:
    """Every name's probability after each prompt, and the states of the best ``top_k`` and of the names ``given``
    (B, G)."""
    log_probabilities = score_names(model, prefill, trie).double().cpu().numpy()
    scores = trie.scores(log_probabilities)
    names = np.argsort(-scores, axis=1, kind="stable")[:, :top_k]
    wanted = np.concatenate([names, given], axis=1)
    return Ranking(
        names=names,
        states=name_states(model, prefill, trie, wanted),
        log_probabilities=log_probabilities,
        probabilities=trie.probabilities(scores),
        unexplored=np.zeros(len(scores)),
        nodes=trie.inner_nodes + (trie.depths[trie.ends[wanted]] + 1).sum(1),
    )


def best_names(model: Any, prefill: Prefill, trie: NameTrie, top_k: int, given: np.ndarray) -> Ranking:
    """The same best names and states, without computing what cannot lead to them. The cache is used up: do not use it
    again."""
    batch, branches = len(prefill.lengths), trie.branches
    roots = branches.children(-1)
    root_scores = _child_scores(model, prefill.last_hidden[:, None], [trie.tokens[roots]]).double().cpu().numpy()
    searches = [Search(branches, row, top_k, more) for row, more in zip(root_scores, given, strict=True)]
    states: list[dict[int, torch.Tensor]] = [{} for _ in searches]
    active, budget, columns = list(range(batch)), FIRST_NODES, 0
    while True:
        if columns > NODES_AT_ONCE:
            prefill.cache.crop(-columns)
            columns = 0
            for search in searches:
                search.forget_columns()
        wanted = {index: searches[index].next_nodes(budget) for index in active}
        going = [index for index in active if len(wanted[index])]
        if not going:
            break
        if len(going) < len(active):
            prefill = _select(prefill, [active.index(index) for index in going])
        active, width = going, max(len(wanted[index]) for index in going)
        nodes = [wanted[index] for index in active]
        seen = [searches[i].seen(row, columns, columns + width) for i, row in zip(active, nodes, strict=True)]
        hidden = _tree_pass(model, prefill, trie, nodes, seen)
        columns += width
        _learn(model, [searches[index] for index in active], nodes, hidden)
        for index, row, row_hidden in zip(active, nodes, hidden, strict=True):
            states[index].update(
                {int(node): row_hidden[i] for i, node in enumerate(row) if branches.name_at[node] >= 0}
            )
        budget = min(2 * budget, MOST_NODES)
    return _collect(searches, states, given)


def _learn(model: Any, searches: Sequence[Search], nodes: Sequence[np.ndarray], hidden: torch.Tensor) -> None:
    """Tell each search what its nodes' states (B, W, H) say of their children, with one transfer for all of them."""
    inner = [search.unscored(row) for search, row in zip(searches, nodes, strict=True)]
    branches = searches[0].branches
    children = [[branches.children(node) for node in row] for row in inner]
    flat = [child for row in children for child in row]
    if flat:
        at = [np.searchsorted(row, own) for row, own in zip(nodes, inner, strict=True)]
        rows = np.repeat(np.arange(len(at)), [len(own) for own in at])
        states = hidden[torch.from_numpy(rows), torch.from_numpy(np.concatenate(at))]
        scores = _child_scores(model, states[None], [branches.trie.tokens[child] for child in flat])[0]
        parts = iter(np.split(scores.double().cpu().numpy(), np.cumsum([len(child) for child in flat])[:-1]))
    for search, row, own in zip(searches, nodes, inner, strict=True):
        search.learn(row, own, [next(parts) for _ in own])


def _collect(searches: Sequence[Search], states: Sequence[dict[int, torch.Tensor]], given: np.ndarray) -> Ranking:
    names = np.stack([search.best() for search in searches])
    ends = searches[0].branches.trie.ends[np.concatenate([names, given], axis=1)]
    probabilities, unexplored = zip(*(search.result() for search in searches), strict=True)
    return Ranking(
        names=names,
        log_probabilities=np.stack([search.log_probabilities for search in searches]),
        probabilities=np.stack(probabilities),
        unexplored=np.array(unexplored),
        states=torch.stack([torch.stack([own[int(e)] for e in row]) for own, row in zip(states, ends, strict=True)]),
        nodes=np.array([int(search.computed.sum()) for search in searches]),
    )


def _select(prefill: Prefill, rows: list[int]) -> Prefill:
    index = torch.tensor(rows, device=prefill.last_hidden.device)
    prefill.cache.batch_select_indices(index)
    return Prefill(prefill.cache, *(value[index] for value in prefill[1:]))


def _child_scores(model: Any, states: torch.Tensor, children: Sequence[np.ndarray]) -> torch.Tensor:
    """Log-probabilities (B, C) float32 of C tokens: ``children[i]`` are those asked of states[:, i], states (B, S, H).

    The vocabulary's logits are needed for their sum alone, and are held for a part of the states at a time.
    """
    vocabulary = model.config.get_text_config().vocab_size
    step = max(LOGITS_AT_ONCE // (vocabulary * len(states)), 1)
    parts = []
    for start in range(0, len(children), step):
        tokens = children[start : start + step]
        logits = model.lm_head(states[:, start : start + step]).float()
        rows = torch.from_numpy(np.repeat(np.arange(len(tokens)), [len(row) for row in tokens])).to(logits.device)
        columns = torch.from_numpy(np.concatenate(tokens)).to(logits.device)
        parts.append(logits[:, rows, columns] - logits.logsumexp(-1)[:, rows])
    return torch.cat(parts, 1)


def _tree_pass(
    model: Any, prefill: Prefill, trie: NameTrie, nodes: Sequence[np.ndarray], seen: Sequence[np.ndarray]
) -> torch.Tensor:
    """Hidden states (B, W, H) of up to W trie nodes after each prompt, appended to the cache.

    seen[b] (n, columns): which columns behind the prompt each of the n nodes of prompt b sees, its own among them.
    """
    device, dtype = prefill.last_hidden.device, prefill.last_hidden.dtype
    batch, width = len(nodes), max(len(row) for row in nodes)
    tokens, depths = np.zeros((2, batch, width), dtype=np.int64)
    behind = np.zeros((batch, width, max(row.shape[1] for row in seen)), dtype=bool)
    for index, (row, row_seen) in enumerate(zip(nodes, seen, strict=True)):
        tokens[index, : len(row)], depths[index, : len(row)] = trie.tokens[row], trie.depths[row]
        behind[index, : len(row), : row_seen.shape[1]] = row_seen
    before = prefill.attention_mask.bool()[:, None].expand(-1, width, -1)
    visible = torch.cat([before, torch.from_numpy(behind).to(device)], -1)
    mask = torch.zeros(visible.shape, dtype=dtype, device=device).masked_fill(~visible, torch.finfo(dtype).min)
    outputs = model.backbone(
        input_ids=torch.from_numpy(tokens).to(device),
        position_ids=prefill.lengths[:, None] + torch.from_numpy(depths).to(device),
        attention_mask=mask[:, None],
        past_key_values=prefill.cache,
        use_cache=True,
    )
    return outputs.last_hidden_state


def _sees(trie: NameTrie, nodes: np.ndarray) -> np.ndarray:
    """The mask (n, n) of which of these ordered nodes, with all their ancestors among them, each sees."""
    mask = np.eye(len(nodes), dtype=bool)
    above = np.searchsorted(nodes, trie.parents[nodes])
    for row in np.flatnonzero(trie.depths[nodes] > 0):
        mask[row] |= mask[above[row]]
    return mask
