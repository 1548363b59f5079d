"""Categories of one's own, from meshes to predictions, by the real commands, only the first told of them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from data_prep import questions
from eval import benchmark
from llava_pose import taxonomy
from llava_pose.errors import UserError
from tests.conftest import TINY_SIZES

ROOT = Path(__file__).parents[1]
TAXONOMY = {
    "categories": {
        "robot_dog": {"meta_class": "robots", "spoken": "robotic dog", "aliases": ["spot"], "known": True},
        "gizmo": {"meta_class": "tools"},
        "hour_sign": {"meta_class": "signs", "with_article": "an hour sign"},
    }
}


def command(*words: object) -> subprocess.CompletedProcess[str]:
    """Run a command of the project as a user does, told of no taxonomy by the environment."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    env.pop(taxonomy.ENVIRONMENT, None)
    return subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, env=env, capture_output=True, text=True)


def succeeds(*words: object) -> str:
    done = command(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_box(path: Path, sides: tuple[float, float, float]) -> None:
    """A box with a smaller one on its front, as OBJ."""
    path.parent.mkdir(parents=True, exist_ok=True)
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=float)
    faces = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    nose = corners * [0.4, 0.4, 0.3] * np.array(sides) + [0.3 * sides[0], -0.4 * sides[1], 0.5 * sides[2]]
    lines = [f"v {x} {y} {z}" for x, y, z in np.concatenate([corners * sides, nose])]
    lines += [f"f {' '.join(str(corner + 1) for corner in face)}" for face in np.concatenate([faces, faces + 8])]
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with meshes, the pictures and data made of them, and a model trained on those for a few steps."""
    folder = tmp_path_factory.mktemp("own")
    sides = {"robot_dog": (0.5, 1.2, 0.7), "gizmo": (0.6, 0.6, 1.1), "Hour-Sign": (1.0, 0.2, 1.0)}
    for name, (x, y, z) in sides.items():
        for number in range(2):
            write_box(folder / "meshes" / name / f"{number}.obj", (x, y + 0.1 * number, z))
    (folder / "mine.yaml").write_text(yaml.safe_dump(TAXONOMY))
    rendered = ("data_prep/render.py", "--meshes", folder / "meshes", "--out", folder / "rendered", "--images", 36)
    unknown = command(*rendered, "--size", 64)
    assert unknown.returncode == 2 and not (folder / "rendered").exists()
    assert unknown.stderr.splitlines()[-1].endswith(
        "meshes/Hour-Sign: category: unknown name 'Hour-Sign'; did you mean sign? "
        "(categories of your own: --taxonomy FILE, or LLAVA_POSE_TAXONOMY=FILE)"
    )
    succeeds(*rendered, "--size", 64, "--workers", 2, "--taxonomy", folder / "mine.yaml")
    convert = ("data_prep/imagenet3d.py", "--root", folder / "rendered", "--out", folder / "data", "--size", 48)
    succeeds(*convert, "--workers", 2)
    recipe = {
        "output_dir": str(folder / "run"),
        "data": [str(folder / "data")],
        "model": {"text": TINY_SIZES, "pose_hidden_size": 32},
        "steps": 3,
        "batch_size": 4,
        "micro_batch_size": 4,
        "learning_rate": 0.003,
        "precision": "fp32",
        "workers": 1,
        "eval_rows": 2,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    succeeds("train/finetune.py", "--config", folder / "recipe.yaml")
    return folder


def test_every_folder_carries_them_on(made: Path) -> None:
    texts = [(made / name / "taxonomy.json").read_text() for name in ("rendered", "data", "run", "run/final")]
    assert texts[1:] == texts[:-1]
    assert set(json.loads(texts[0])["categories"]) == set(TAXONOMY["categories"])


def test_captions_questions_and_answers_speak_of_them_as_the_file_says(made: Path) -> None:
    from llava_pose.conversation import naming_answer, training_conversation
    from llava_pose.scene import PosedImage, load_split
    from llava_pose.serving.poses import name_at_end

    said = set()
    for row in load_split(made / "data", "train"):
        record = PosedImage.from_row(row)
        name = taxonomy.spoken_name(record.objects[0].category)
        assert name in record.caption
        for seed in range(3):
            talk = training_conversation(record, np.random.default_rng(seed))
            answers = [turn["content"][0]["text"] for turn in talk.messages if turn["role"] == "assistant"]
            assert any(f"{name} <pose>" in answer for answer in answers)
            assert all(f"{name} <pose>" in answer for answer in answers if "<pose>" in answer)
        assert name_at_end(f"Here is {taxonomy.with_article(record.objects[0].category)} ") == name
        said.add(naming_answer(record.objects[0].category))
    assert said == {"robotic dog <pose>.", "gizmo <pose>.", "hour sign <pose>."}


def test_held_out_questions_ask_about_them(made: Path, tmp_path: Path) -> None:
    questions.main(["--data", str(made / "data"), "--out", str(tmp_path / "asked.jsonl")])
    asked = [json.loads(line) for line in (tmp_path / "asked.jsonl").read_text().splitlines()]
    text = " ".join(line["question"] for line in asked)
    assert all(name in text for name in ("robotic dog", "gizmo", "hour sign")) and "robot dog" not in text


def test_a_new_language_models_tokens_are_learnt_from_them_too(made: Path) -> None:
    from llava_pose import assembly, checkpoint
    from llava_pose.conversation import example_texts

    taxonomy.use_folder(made / "data")
    texts = " ".join(example_texts())
    assert all(texts.count(name) > 5 for name in ("robotic dog", "gizmo", "hour sign"))
    learnt = assembly.train_tokenizer().get_vocab()
    _, processor = checkpoint.load(made / "run" / "final")
    assert processor.tokenizer.get_vocab() == learnt


def test_the_benchmark_has_their_meta_classes_and_predict_their_names(made: Path) -> None:
    model = ("--model", made / "run" / "final")
    table = succeeds("eval/benchmark.py", *model, "--data", made / "data", "--out", made / "eval")
    metrics = json.loads((made / "eval" / "metrics.json").read_text())
    assert set(metrics["joint"]["meta_classes"]) == {"robots", "tools", "signs"}
    assert set(metrics["joint"]["categories"]) == set(TAXONOMY["categories"])
    assert "novel categories" in table
    assert "robots" in table and "robots" in (made / "eval" / "report.html").read_text()
    lines = [json.loads(line) for line in (made / "eval" / "predictions.jsonl").read_text().splitlines()]
    assert {line["predicted_category"] for line in lines} <= set(TAXONOMY["categories"])
    known = sum(line["category"] == "robot_dog" for line in lines)
    counts = {name: part["count"] for name, part in metrics["open_vocabulary"].items()}
    assert counts == {"known": known, "novel": len(lines) - known}

    picture = next((made / "rendered" / "images" / "robot_dog").glob("*.JPEG"))
    (made / "names.txt").write_text("Spot\n")
    predict = ("-m", "llava_pose.cli", "predict", picture, *model)
    (found,) = json.loads(succeeds(*predict, "--json", "--categories", made / "names.txt"))
    assert found["category"] == "robot_dog"
    assert "robotic dog 100%" in succeeds(*predict, "--categories", made / "names.txt")


def test_a_trained_model_brings_its_categories_along(made: Path) -> None:
    from llava_pose import LlavaPose

    model = LlavaPose.from_pretrained(made / "run" / "final")
    assert model.categories == sorted(TAXONOMY["categories"])
    picture = next((made / "rendered" / "images" / "gizmo").glob("*.JPEG"))
    (found,) = model.predict([picture], categories=["spot", "Car"])
    assert found.category in ("robot_dog", "car")
    assert taxonomy.known() >= {"robot_dog"} and not taxonomy.known() & {"gizmo", "hour_sign"}


def test_a_model_and_data_that_disagree_are_refused_in_one_line(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for shard in (made / "data").glob("*.parquet"):
        (data / shard.name).symlink_to(shard)
    said = json.loads((made / "data" / "taxonomy.json").read_text())
    said["categories"]["robot_dog"].update(spoken="metal dog", with_article="a metal dog")
    (data / "taxonomy.json").write_text(json.dumps(said))
    argv = ["benchmark.py", "--model", made / "run" / "final", "--data", data, "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", [*map(str, argv)])
    with pytest.raises(UserError) as refused:
        benchmark.main()
    assert not (tmp_path / "out").exists()
    assert str(refused.value) == (
        f"{data}/taxonomy.json: categories.robot_dog.spoken: 'metal dog' contradicts 'robotic dog' in "
        f"{made}/run/final/taxonomy.json"
    )


def test_a_model_whose_taxonomy_was_lost_is_refused_by_name(made: Path, tmp_path: Path) -> None:
    from llava_pose import checkpoint

    model = tmp_path / "model"
    model.mkdir()
    for file in (made / "run" / "final").iterdir():
        if file.name != "taxonomy.json":
            (model / file.name).symlink_to(file)
    with pytest.raises(UserError, match=f"^{model}: category: unknown name 'gizmo'"):
        checkpoint.load(model)
