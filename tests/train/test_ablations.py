"""The ablations: what each patch changes is what it says, in training and in scoring, and the tables are right."""

import csv
import io
import math
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from llava_pose import assembly, conversation
from llava_pose.bins import PoseBins
from llava_pose.decoding import all_names
from llava_pose.engine import Engine
from llava_pose.errors import UserError
from llava_pose.geometry import pose_error
from llava_pose.image_inputs import ImageInputs
from llava_pose.processing import assistant_message
from llava_pose.vision import COARSE_BLOCK, MIDDLE_BLOCK, load_embedded_tower
from tests.conftest import TINY_SIZES
from tests.short_runs import write_split
from train import ablations
from train.ablating import tables
from train.ablating.patches import bins, one_layer, state_before_pose, unchanged
from train.ablating.scoring import Scored, load_scored, save_scored
from train.ablating.variants import BASELINE, VARIANTS, chosen

CATEGORIES = ["bicycle", "car", "train_station"]


def scored(errors_in_degrees, correct=None, bins=40):
    """Answers whose distributions are soft targets so far off in theta."""
    errors = np.radians(np.asarray(errors_in_degrees, dtype=np.float64))
    read = np.stack([np.zeros_like(errors), np.full_like(errors, 0.2), errors], -1)
    return Scored(
        logits=np.log(PoseBins(bins).soft_targets(read) + 1e-12).astype(np.float32),
        correct=np.ones(len(errors), dtype=bool) if correct is None else np.asarray(correct),
        truth=read * [1, 1, 0],
        pictures=np.array([f"p{number // 2}" for number in range(len(errors))]),
        steps=3,
    )


def trained_and_scored_logits(pair, features):
    """The pose logits of one picture's best name, as training's forward pass reads them and as scoring does."""
    model, processor = pair
    engine = Engine(model, processor)
    with torch.no_grad():
        pixels = ImageInputs({"vision_features": features}, (processor.image_tokens,))
        state = engine.prefill([conversation.naming_messages()], pixels)
        best = all_names(model, state, engine.name_trie(CATEGORIES), 1, np.zeros((1, 0), dtype=np.int64))
        name = CATEGORIES[best.names[0, 0]]
        talk = [*conversation.naming_messages(), assistant_message(conversation.naming_answer(name))]
        ids, labels = (torch.from_numpy(each)[None] for each in processor.encode(talk))
        forward = model(input_ids=ids, labels=labels, poses=torch.zeros(1, 3), vision_features=features)
        return forward.pose_logits[0], model.pose_head(best.states[0, 0])


@pytest.fixture
def features(tiny_pair):
    model, processor = tiny_pair
    shape = (1, processor.image_tokens, model.config.vision_config.hidden_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("patch", [unchanged, state_before_pose], ids=["at", "before"])
def test_the_state_that_is_trained_is_the_state_that_is_scored(tiny_pair, features, patch):
    with patch():
        trained, read = trained_and_scored_logits(tiny_pair, features)
    torch.testing.assert_close(trained, read, atol=1e-4, rtol=1e-4)


def test_before_pose_is_another_state_and_gone_after_the_context(tiny_pair, features):
    at, _ = trained_and_scored_logits(tiny_pair, features)
    with state_before_pose():
        before, _ = trained_and_scored_logits(tiny_pair, features)
    again, _ = trained_and_scored_logits(tiny_pair, features)
    assert (at - before).abs().max() > 1e-2
    torch.testing.assert_close(at, again)


def test_new_models_have_so_many_bins(tiny_pair):
    usual = assembly.assemble
    with bins(20):
        model, _ = assembly.assemble(TINY_SIZES)
    assert model.pose_head.linear_2.out_features == 60 and model.config.pose_bins == 20
    assert assembly.assemble is usual and tiny_pair[0].config.pose_bins == 40


def test_each_layer_is_the_map_of_its_stride():
    tower = load_embedded_tower(image_size=64, patch_size=32)
    pixels = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    projector = torch.nn.Module()
    seen = {}
    for name, block in (("whole", None), ("without 32", COARSE_BLOCK), ("without 16 and 32", MIDDLE_BLOCK)):
        kept = [] if block is None else [tower.blocks[block].register_forward_hook(lambda *given: 0 * given[2] + 7)]
        tokens = tower(pixels).last_hidden_state
        for handle in kept:
            handle.remove()
        for stride in (8, 16, 32):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(LlavaMultiModalProjector, "forward", lambda self, shown: shown)
                with one_layer(stride):
                    seen[name, stride] = LlavaMultiModalProjector.forward(projector, tokens)
    torch.testing.assert_close(sum(seen["whole", stride] for stride in (8, 16, 32)), tower(pixels).last_hidden_state)
    changed = {
        (name, stride): not torch.equal(seen[name, stride], seen["whole", stride])
        for name, stride in seen
        if name != "whole"
    }
    assert [changed["without 32", stride] for stride in (8, 16, 32)] == [False, False, True]
    assert [changed["without 16 and 32", stride] for stride in (8, 16, 32)] == [False, True, True]


def test_every_variant_is_a_valid_run_that_differs_from_what_it_stands_against(tmp_path):
    by_name = {variant.name: variant for variant in VARIANTS}
    assert len(by_name) == len(VARIANTS)
    for variant in VARIANTS:
        config = ablations.settings(variant, 1, tmp_path, None)
        other = by_name[variant.against]
        assert config.seed == 1
        assert (config.batch_size, config.steps) == (32, ablations.settings(other, 1, tmp_path, None).steps)
        if variant is not other:
            assert (variant.overrides, variant.data, variant.patch) != (other.overrides, other.data, other.patch)
            assert variant.scored == other.scored, "the differences are of the same objects"
    assert [variant.name for variant in chosen(["hard", BASELINE])] == [BASELINE, "hard"]


def test_a_t_interval_of_three_seeds_is_students():
    assert tables.t_half_width(np.array([1.0, 2.0, 3.0])) == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert math.isnan(tables.t_half_width(np.array([1.0])))


def test_differences_are_of_equal_seeds_and_objects():
    good, bad = [2.0] * 20, [2.0] * 10 + [40.0] * 10
    mine = {seed: tables.as_run(scored(good)) for seed in (0, 1, 2)}
    other = {seed: tables.as_run(scored(bad)) for seed in (0, 1, 7)}
    found = tables.differences(mine, other)["acc_pi_6"]
    assert found["mean"] == pytest.approx(50.0) and found["seeds"] == pytest.approx(0.0)
    assert 5.0 < found["objects"][0] < 40.0 and 60.0 < found["objects"][1] < 95.0
    same = tables.differences(mine, mine)["acc_pi_6"]
    assert same["mean"] == 0 and same["objects"] == [0.0, 0.0], "both are drawn from the same resamples"


@pytest.mark.parametrize(
    "difference, sure",
    [
        ({"mean": 5.0, "seeds": 2.0, "objects": [3.0, 7.0]}, True),
        ({"mean": 5.0, "seeds": 6.0, "objects": [3.0, 7.0]}, False),
        ({"mean": -5.0, "seeds": 2.0, "objects": [-11.0, 1.0]}, False),
        ({"mean": 5.0, "seeds": math.nan, "objects": [3.0, 7.0]}, False),
    ],
)
def test_a_difference_is_bold_where_both_intervals_leave_0_out(difference, sure):
    assert tables.told(difference).startswith("**") is sure


@pytest.mark.parametrize("name", [*tables.READINGS])
def test_every_reading_finds_a_lone_peak(name):
    bins = PoseBins(40)
    truth = np.stack([np.linspace(0, 6, 50), np.linspace(-1.3, 1.3, 50), np.linspace(-3, 3, 50)], -1)
    read = tables.READINGS[name](bins, np.log(bins.soft_targets(truth) + 1e-30))
    # Half a bin in each of three angles, less where a mean reads below it.
    worst = {"argmax": 13.5, "mode and neighbours": 6.0, "whole circle": 0.1}[name]
    assert np.degrees(pose_error(read, truth)).max() < worst


def test_a_second_peak_draws_the_mean_over_the_circle_away_and_no_other():
    bins = PoseBins(40)
    first, second = (bins.soft_targets(np.array([[azimuth, 0.3, 0.0]])) for azimuth in (1.0, 3.0))
    logits = np.log(0.6 * first + 0.4 * second + 1e-30)
    errors = {
        name: pose_error(read(bins, logits), np.array([[1.0, 0.3, 0.0]])) for name, read in tables.READINGS.items()
    }
    assert np.degrees(errors["whole circle"][0]) > 30
    assert np.degrees(errors["mode and neighbours"][0]) < 3


def test_tables_hold_every_finished_run_and_the_readings_of_the_baseline(tmp_path, capsys):
    for seed in (0, 1):
        save_scored(tmp_path / "results" / f"{BASELINE}.{seed}.npz", scored([5.0, 20.0, 40.0, 3.0]))
        save_scored(tmp_path / "results" / f"bins-20.{seed}.npz", scored([5.0, 2.0, 4.0, 3.0], [1, 1, 0, 1], bins=20))
    tables.write_tables(tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "runs.csv").read_text())))
    assert [(row["variant"], row["seed"]) for row in rows[:4]] == [
        (name, seed) for name in (BASELINE, "bins-20") for seed in "01"
    ]
    assert [row["variant"] for row in rows[4:]] == [f"baseline, {way}" for way in tables.READINGS for _ in "01"]
    assert (rows[0]["acc_pi_6"], rows[0]["steps"], rows[0]["objects"]) == ("75.000", "3", "4")
    assert rows[2]["acc_pi_18"] == "75.000", "a wrong class adds π"
    text = (tmp_path / "tables.md").read_text()
    assert "`bins-20`" in text and "+25.0 ± 0.0" in text and text.strip() in capsys.readouterr().out


def test_tables_of_nothing_are_refused(tmp_path):
    with pytest.raises(UserError, match="no run has finished"):
        ablations.main(["--out", str(tmp_path), "--tables"])
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / f"{BASELINE}.0.npz").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"baseline\.0\.npz: not a run's answers"):
        ablations.main(["--out", str(tmp_path), "--tables"])


def test_a_run_leaves_its_answers_is_not_run_again_and_refuses_other_steps(tmp_path, monkeypatch):
    (tmp_path / "crops").mkdir()
    write_split(tmp_path / "crops", "train", 12, seed=0, objects=(1,))
    write_split(tmp_path / "crops", "val", 6, seed=1, objects=(1,))
    (variant,) = chosen(["bins-20"])
    left = tmp_path / "runs" / "bins-20.0"
    (left / "final").mkdir(parents=True)
    ablations.run(variant, 0, tmp_path, 1)
    assert not left.exists(), "what a stopped run left is thrown away, and a finished one keeps its answers alone"
    found = load_scored(tmp_path / "results" / "bins-20.0.npz")
    assert found.logits.shape == (6, 3, 20) and found.steps == 1 and np.isfinite(found.errors()).all()
    monkeypatch.setattr(ablations, "train", None)
    ablations.run(variant, 0, tmp_path, 1)
    with pytest.raises(UserError, match=r"--steps 2: .* holds a run of 1 steps"):
        ablations.run(variant, 0, tmp_path, 2)


@pytest.mark.slow
def test_the_command_makes_its_data_runs_and_goes_on(tmp_path):
    base = [sys.executable, "train/ablations.py", "--out", str(tmp_path), "--images", "36", "--steps", "1"]
    command = partial(
        subprocess.run, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2], timeout=900
    )
    first = [*base, "--seeds", "0", "--only", BASELINE, "before-pose", "no-captions", "scenes-and-crops", "lora-16"]
    done = command(first)
    assert done.returncode == 0, done.stderr[-3000:]
    again = command([*base, "--seeds", "0", "1", "--only", BASELINE])
    assert again.returncode == 0, again.stderr[-3000:]
    assert "seed 0" not in again.stdout and "render.py" not in again.stdout and "baseline, seed 1" in again.stdout
    assert len(list((tmp_path / "results").glob("*.npz"))) == 7
    # Two runs of the baseline and one of the embedded model are read in other ways too.
    assert len((tmp_path / "runs.csv").read_text().splitlines()) == 1 + 7 + 3 * len(tables.READINGS)
