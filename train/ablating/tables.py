"""The runs' figures, how far each variant lies from what it stands against, and how sure that is.

Two intervals, for two doubts. Over seeds: would other weights and rows say the same? The mean of the differences
between runs of equal seed, with Student's t interval. Over objects: would other pictures? Pictures are drawn anew with
replacement, the same for both runs, and the seeds' mean difference is taken each time. Both hold 95 %.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from eval.intervals import bootstrap, figures_of, percentiles
from llava_pose.bins import PoseBins
from llava_pose.errors import UserError
from llava_pose.files import write_atomic
from llava_pose.geometry import canonical_pose
from train.ablating.scoring import Scored, load_scored
from train.ablating.variants import BASELINE, EMBEDDED, VARIANTS

FIGURES = {"acc_pi_6": "acc@π/6", "acc_pi_18": "acc@π/18", "median_error_deg": "median °"}
COLUMNS = (*FIGURES, "mean_error_deg", "classification_accuracy")

Run = tuple[np.ndarray, np.ndarray, np.ndarray]
"""A run's joint errors (N,) in radians, whether the class is right (N,), and pictures (N,)."""
Reading = Callable[[PoseBins, np.ndarray], np.ndarray]
"""Poses (N, 3) of logits (N, 3, bins)."""


def write_tables(out: Path) -> None:
    """Write ``runs.csv`` and ``tables.md`` from the results in ``out``, and print the tables.

    Raises UserError where there is no result.
    """
    scored = read_results(out / "results")
    if not scored:
        raise UserError(f"{out / 'results'}: no run has finished")
    runs = {name: {seed: as_run(each) for seed, each in seeds.items()} for name, seeds in scored.items()}
    steps = {name: {seed: each.steps for seed, each in seeds.items()} for name, seeds in scored.items()}
    against = {variant.name: variant.against for variant in VARIANTS}
    says = {variant.name: f"{variant.question}: {variant.says}" for variant in VARIANTS}
    parts = [as_table({name: runs[name] for name in runs if name != EMBEDDED}, against, says)]
    for name in (BASELINE, EMBEDDED):
        if name in runs:
            read = read_otherwise(name, scored[name])
            parts += [f"`{name}`, its poses read in other ways:"]
            parts += [as_table({name: runs[name], **read}, dict.fromkeys(read, name), {})]
            runs |= read
            steps |= dict.fromkeys(read, steps[name])
    write_atomic(out / "runs.csv", as_csv(runs, steps))
    text = "\n\n".join(parts)
    write_atomic(out / "tables.md", f"{text}\n")
    print(text)


def read_results(folder: Path) -> dict[str, dict[int, Scored]]:
    """Every finished run's answers, by variant in the list's order, and seed; the embedded model's last."""
    found: dict[str, dict[int, Scored]] = {}
    for name in (*(variant.name for variant in VARIANTS), EMBEDDED):
        # A name may hold a point ("pose-weight-0.3"): what is between the last two is the seed.
        for path in sorted(folder.glob(f"{name}.*.npz")):
            found.setdefault(name, {})[int(path.name.split(".")[-2])] = load_scored(path)
    return found


def as_run(scored: Scored, poses: np.ndarray | None = None) -> Run:
    """What figures are made of."""
    return scored.errors(poses), scored.correct, scored.pictures


def mode_mean(bins: PoseBins, logits: np.ndarray) -> np.ndarray:
    """Each angle's mean over the best bin and its two neighbours."""
    probabilities = bins.probabilities(logits)
    mode = bins.peaks(probabilities).argmax(-1)
    near = (mode[..., None] + np.arange(-1, 2)) % bins.num_bins
    weights = np.take_along_axis(probabilities, near, -1)
    offset = (weights * np.arange(-1, 2)).sum(-1) / weights.sum(-1)
    return np.asarray(canonical_pose(bins.centers[mode] + offset * bins.width))


def circle_mean(bins: PoseBins, logits: np.ndarray) -> np.ndarray:
    """Each angle's circular mean over the whole distribution."""
    probabilities, centers = bins.probabilities(logits), bins.centers
    angle = np.arctan2((probabilities * np.sin(centers)).sum(-1), (probabilities * np.cos(centers)).sum(-1))
    return np.asarray(canonical_pose(angle))


READINGS: Mapping[str, Reading] = {
    "argmax": lambda bins, logits: np.asarray(bins.argmax(logits)),
    "mode and neighbours": mode_mean,
    "whole circle": circle_mean,
}


def read_otherwise(name: str, scored: Mapping[int, Scored]) -> dict[str, dict[int, Run]]:
    """A model's runs with poses read from the same distributions in other ways than the product's mean over seven bins
    around the mode."""
    return {
        f"{name}, {way}": {
            seed: as_run(each, read(PoseBins(each.logits.shape[-1]), each.logits)) for seed, each in scored.items()
        }
        for way, read in READINGS.items()
    }


def figures(run: Run) -> dict[str, float]:
    """A run's figures on its objects."""
    errors, correct, _ = run
    return {name: float(figure(np.ones((1, len(errors))))[0]) for name, figure in figures_of(errors, correct).items()}


def differences(mine: Mapping[int, Run], other: Mapping[int, Run]) -> dict[str, dict[str, Any]]:
    """By figure: the mean difference over the seeds that both have, ``seeds`` the half width of its t interval (NaN
    for one seed), and ``objects`` the two ends of its bootstrap interval over pictures."""
    seeds = sorted(mine.keys() & other.keys())
    values = [(figures(mine[seed]), figures(other[seed])) for seed in seeds]
    drawn = [(resampled(mine[seed]), resampled(other[seed])) for seed in seeds]
    result = {}
    for name in FIGURES:
        each = np.array([one[name] - two[name] for one, two in values])
        means = np.mean([one[name] - two[name] for one, two in drawn], axis=0)
        result[name] = {"mean": float(each.mean()), "seeds": t_half_width(each), "objects": percentiles(means)}
    return result


def resampled(run: Run) -> dict[str, np.ndarray]:
    """Each figure of the resamples of a run's pictures: the same ones for every run on the same pictures."""
    errors, correct, pictures = run
    return bootstrap(figures_of(errors, correct), pictures.tolist())


def t_half_width(values: np.ndarray) -> float:
    """Half the width of the 95 % t interval of the mean of values (S,)."""
    if len(values) < 2:
        return math.nan
    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))


def as_table(runs: Mapping[str, Mapping[int, Run]], against: Mapping[str, str], says: Mapping[str, str]) -> str:
    """A table in Markdown: means over seeds, and differences with both intervals."""
    header = ["variant", "seeds", *(f"{title} | difference ± t, [objects]" for title in FIGURES.values())]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * (2 + 2 * len(FIGURES))}"]
    for name, seeds in runs.items():
        other = against.get(name, name)
        known = other != name and bool(runs.get(other, {}).keys() & seeds.keys())
        found = differences(seeds, runs[other]) if known else None
        means = {figure: np.mean([figures(run)[figure] for run in seeds.values()]) for figure in FIGURES}
        cells = [f"{means[figure]:.1f} | {'' if found is None else told(found[figure])}" for figure in FIGURES]
        told_name = f"`{name}`" + (f" {says[name]}" if name in says else "")
        lines.append(f"| {told_name} | {len(seeds)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def told(difference: Mapping[str, Any]) -> str:
    """A difference with both intervals; bold where both leave 0 out."""
    low, high = difference["objects"]
    width = "" if math.isnan(difference["seeds"]) else f" ± {difference['seeds']:.1f}"
    text = f"{difference['mean']:+.1f}{width} [{low:+.1f}, {high:+.1f}]"
    sure = bool(width) and abs(difference["mean"]) > difference["seeds"] and low * high > 0
    return f"**{text}**" if sure else text


def as_csv(runs: Mapping[str, Mapping[int, Run]], steps: Mapping[str, Mapping[int, int]]) -> str:
    """A line a run."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["variant", "seed", "steps", "objects", *COLUMNS])
    for name, seeds in runs.items():
        for seed, run in seeds.items():
            values = figures(run)
            writer.writerow([name, seed, steps[name][seed], len(run[0]), *(f"{values[each]:.3f}" for each in COLUMNS)])
    return text.getvalue()
