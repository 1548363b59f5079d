"""A trained model on the hub: its card, the upload, and opening it from there."""

import json
import re
import subprocess
import sys

import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image

from llava_pose import publishing
from llava_pose.errors import UserError
from tests.fake_hub import fake_hub
from tests.short_runs import data_dir, recipe, run  # noqa: F401  fixtures
from tests.test_adapters import rename_base

NAME = "you/posed"
METRICS = {
    "joint": {
        "average": {
            "acc_pi_6": 49.14,
            "acc_pi_18": 15.2,
            "median_error_deg": 31.2,
            "mean_error_deg": 60.0,
            "classification_accuracy": 80.0,
            "count": 9,
        }
    },
    "settings": {"data": "/home/someone/data/posed", "split": "val"},
}


@pytest.fixture
def trained(run, released):  # noqa: F811
    model = {"base": str(released[1]), "lora": {"rank": 4, "alpha": 8}, "pose_hidden_size": 24}
    return run("run", model=model, cache_features=False, steps=2, eval_every=1) / "final"


@pytest.fixture
def python(tmp_path):
    """Runs code in a process whose hub is ours: ``python(hub, code, *words)``, its output."""

    def python(hub, code, *words):
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_anything"}
        settings |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0"}
        import os

        done = subprocess.run(
            [sys.executable, *code, *map(str, words)],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done

    return python


def test_a_card_holds_recipe_data_and_scores_and_no_path_of_this_machine(trained, data_dir):  # noqa: F811
    card = ModelCard.load(trained / "README.md")
    assert card.data.pipeline_tag == "image-text-to-text" and card.data.base_model is None
    log = [json.loads(line) for line in (trained.parent / "log.jsonl").read_text().splitlines()]
    last = next(line for line in reversed(log) if "val_acc_pi_6" in line)
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert results["acc@π/6"] == round(last["val_acc_pi_6"], 2)
    assert f"| acc@π/6 | {round(last['val_acc_pi_6'], 2):g} |" in card.text
    assert f"| {data_dir.name} | 24 | 1 |" in card.text
    told = yaml.safe_load(re.search(r"```yaml\n(.*?)```", card.text, re.DOTALL)[1])
    assert told["steps"] == 2 and told["model"]["lora"]["rank"] == 4
    assert str(data_dir) not in card.content and str(trained.parent) not in card.content
    assert "/llava-1.5-tiny" not in card.content


def test_a_benchmarks_table_goes_into_the_card_once(trained, tmp_path):
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(METRICS))
    card = (trained / "README.md").read_text()
    once = publishing.with_metrics(card, file)
    assert publishing.with_metrics(once, file) == once
    assert "| acc@π/6 | 49.1 |" in once and "On `posed`, split `val`" in once and "/home" not in once
    assert once.index("## Benchmark") < once.index("## Recipe")
    (tmp_path / "other.json").write_text("{}")
    for wrong in ("other.json", "none.json"):
        with pytest.raises(UserError, match=rf"{wrong}: is no metrics.json of eval/benchmark.py"):
            publishing.with_metrics(card, tmp_path / wrong)


def test_pushed_the_folder_is_on_the_hub_and_opens_from_there(trained, released, python, tmp_path):
    metrics = tmp_path / "metrics.json"
    metrics.write_text(json.dumps(METRICS))
    picture = tmp_path / "picture.png"
    Image.new("RGB", (40, 40), "red").save(picture)
    command = ["-m", "llava_pose.cli"]
    with fake_hub() as hub:
        hub.files["maker/base"] = {path.name: path.read_bytes() for path in released[1].iterdir()}
        refused = python(hub, command, "push", NAME, "--model", trained)
        assert refused.returncode == 2 and "an adapter of " in refused.stderr and "llava-pose merge" in refused.stderr
        assert NAME not in hub.files
        rename_base(trained, "maker/base")
        done = python(hub, command, "push", NAME, "--model", trained, "--metrics", metrics)
        assert done.returncode == 0, done.stderr
        assert hub.files[NAME] == {path.name: path.read_bytes() for path in trained.iterdir()}
        assert b"## Benchmark" in hub.files[NAME]["README.md"]
        # From the hub, its base from there too: the sample of the base's weights is found again.
        found = python(hub, command, "predict", picture, "--model", NAME, "--json")
        assert found.returncode == 0, found.stderr
        (pose,) = json.loads(found.stdout)
        here = python(hub, command, "predict", picture, "--model", trained, "--json")
        assert json.loads(here.stdout)[0]["azimuth"] == pytest.approx(pose["azimuth"], abs=1e-4)


def test_what_cannot_be_published_is_refused(trained, tiny_model_dir, monkeypatch):
    with pytest.raises(UserError, match=r"README.md: missing; training writes a card"):
        publishing.push_to_hub(tiny_model_dir, NAME)
    with pytest.raises(UserError, match="you/other: not a folder"):
        publishing.push_to_hub("you/other", NAME)
    rename_base(trained, "maker/base")
    with pytest.raises(UserError, match=r"not a name: the hub refuses|not a name/twice: the hub refuses"):
        publishing.push_to_hub(trained, "not a name/twice")
