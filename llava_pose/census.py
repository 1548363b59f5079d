"""Random questions about records whose answers come out balanced, whatever the poses of the data set are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from . import taxonomy
from .facts import Fact
from .questions import KIND, Case, Kind, offered_facts
from .scene import PosedImage

EVENNESS = 2.0
"""How many times as often as the rarest answer of its kind another may be asked for, as far as it can be had."""


@dataclass(frozen=True)
class Census:
    """What a data set holds, which keeps random questions about its records balanced.

    categories: its categories, all of which may be said to be absent. weights: how much each case weighs against the
    others that a record offers.
    """

    categories: tuple[str, ...] = ()
    weights: Mapping[Case, float] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[PosedImage]) -> Census:
        """The census of records that are drawn as those asked about will be, some hundreds or more.

        The weights are fitted until, over these records, each kind is asked by its share, each of its labels as often
        as the others, and each thing as often when it is absent as when it is present. Where a label is too rare for
        that its kind is asked less, so that none of its labels is asked more than ``EVENNESS`` times as often as
        another; a label rarer than a twentieth of an even share is not waited for. A question to which all the records
        give one answer is not asked.
        """
        records = list(records)
        categories = tuple(sorted({item.category for record in records for item in record.objects}))
        columns: dict[Case, int] = {}
        offers = [
            [columns.setdefault(case, len(columns)) for case in offered_facts(record, categories)] for record in records
        ]
        if not columns:
            return cls(categories)
        offered = np.zeros((len(offers), len(columns)))
        for row, places in zip(offered, offers, strict=True):
            row[places] = 1.0
        return cls(categories, dict(zip(columns, _fitted(offered, list(columns)).tolist(), strict=True)))


def _fitted(offered: np.ndarray, cases: Sequence[Case]) -> np.ndarray:
    """Weights (L,) of cases under which draws from what records offer (N, L) come out as wanted."""
    wanted = _wanted(offered.mean(0), cases)
    if not wanted.any():
        return wanted
    offered = offered[:, wanted > 0]
    offered = offered[offered.any(1)]
    shares = np.array([KIND[name].share for name, _, _ in cases])[wanted > 0]
    weights, aim = shares, wanted[wanted > 0] / wanted.sum()
    for _ in range(60):
        drawn = (offered * weights / (offered @ weights)[:, None]).mean(0)
        weights = np.minimum(weights * aim / drawn, 50 * shares)
    fitted = np.zeros(len(cases))
    fitted[wanted > 0] = weights
    return fitted


def _wanted(often: np.ndarray, cases: Sequence[Case]) -> np.ndarray:
    """The share of all questions that each case (L,) is to have, when so many of the records (L,) offer it."""
    # Answers to one question: the labels of a kind, or "yes" and "no" about one thing. The rarest sets the pace.
    answers: dict[tuple[str, str], list[float]] = {}
    for (name, _, things), share in zip(cases, often.tolist(), strict=True):
        answers.setdefault((name, things), []).append(share)
    rarest = {
        asked: 0.0 if len(shares) == 1 and KIND[asked[0]].choices else min(shares) for asked, shares in answers.items()
    }
    of_kind: dict[str, float] = {}
    for (name, _), rare in rarest.items():
        of_kind[name] = of_kind.get(name, 0.0) + rare
    all_shares = sum(KIND[name].share for name in of_kind)
    wanted = np.zeros(len(cases))
    for place, (name, _, things) in enumerate(cases):
        rare = rarest[name, things]
        if rare:
            even = KIND[name].share / all_shares * rare / of_kind[name] / len(answers[name, things])
            # No more than a third of what is asked about the records that offer an answer is for this answer.
            wanted[place] = min(even, EVENNESS * max(rare / 3, even / 20))
    return wanted


def draw(record: PosedImage, rng: np.random.Generator, census: Census) -> tuple[Kind, Fact] | None:
    """A random fact to ask for, by the census' weights. None where there is none.

    Where the census has no weights: a kind by its share, then one of its labels, then what it is about.
    """
    offered = offered_facts(record, census.categories or taxonomy.categories())
    if census.weights:
        weights = [census.weights.get(case, 0.0) for case in offered]
    else:
        same_label = Counter((name, label) for name, label, _ in offered)
        same_kind = Counter(name for name, _ in same_label)
        weights = [KIND[name].share / same_kind[name] / same_label[name, label] for name, label, _ in offered]
    if not sum(weights):
        return None
    case = list(offered)[rng.choice(len(offered), p=np.array(weights) / sum(weights))]
    return KIND[case[0]], offered[case][rng.integers(len(offered[case]))]
