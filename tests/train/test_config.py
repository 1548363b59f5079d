"""A run's configuration: a mistake is refused at once and by name."""

from pathlib import Path

import pytest
import yaml

from llava_pose.errors import UserError
from train.config import load_config, save_config

VALID = {
    "output_dir": "runs/x",
    "data": ["data/a", "data/b"],
    "model": {"text": {"hidden_size": 32}},
    "steps": 10,
    "batch_size": 4,
    "micro_batch_size": 2,
    "learning_rate": 0.001,
}
LORA = {"model": {"base": "somewhere", "lora": {}}}


@pytest.fixture
def write(tmp_path):
    def write(values, **more):
        path = tmp_path / "recipe.yaml"
        path.write_text(values if isinstance(values, str) else yaml.safe_dump({**values, **more}))
        return path

    return write


def refused(path, *overrides):
    with pytest.raises(UserError) as caught:
        load_config(path, overrides)
    return str(caught.value)


def test_a_recipe_is_read_with_its_defaults(write):
    config = load_config(write(VALID))
    assert (config.output_dir, config.steps, config.seed) == ("runs/x", 10, 0)
    assert [(part.path, part.weight, part.images) for part in config.data] == [("data/a", 1, None), ("data/b", 1, None)]
    assert config.model.lora is None and config.model.pose_target_deviation == 1.0


@pytest.mark.parametrize("recipe", sorted(Path(__file__).parents[2].glob("train/recipes/*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_of_ours_is_valid_and_opens_with_its_launch_command(recipe):
    load_config(recipe)
    assert recipe.read_text().startswith("# accelerate launch ")


def test_what_is_saved_with_a_run_reads_back_equal(write, tmp_path):
    config = load_config(write(VALID, **LORA), ["model.lora.rank=8", "learning_rate=1e-5"])
    save_config(config, tmp_path)
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize("text, value", [("1e-3", 1e-3), ("2E-4", 2e-4), ("1", 1.0), ("5.0e-4", 5e-4), (".5", 0.5)])
def test_numbers_are_read_as_people_write_them(write, text, value):
    assert load_config(write(VALID), [f"learning_rate={text}"]).learning_rate == pytest.approx(value)
    recipe = write(yaml.safe_dump({**VALID, "learning_rate": 7}).replace("learning_rate: 7", f"learning_rate: {text}"))
    assert load_config(recipe).learning_rate == pytest.approx(value)


def test_overrides_reach_into_sections_and_make_missing_ones(write):
    config = load_config(
        write(VALID, **LORA),
        ["model.lora.rank=16", "model.lora.dropout=0", "data=data/only", "flip=false", "cache_dir=null", "seed=3"],
    )
    assert (config.model.lora.rank, config.model.lora.dropout) == (16, 0)
    assert (config.data[0].path, config.flip, config.cache_dir, config.seed) == ("data/only", False, None, 3)
    assert len(config.data) == 1
    assert load_config(write(VALID, model={"base": "x", "lora": None}), ["model.lora.rank=2"]).model.lora.rank == 2
    assert [part.path for part in load_config(write(VALID), ["data=[data/c, data/d]"]).data] == ["data/c", "data/d"]


def test_a_data_set_may_have_a_weight_and_a_folder_of_images(write, tmp_path):
    mixed = ["data/a", {"path": "data/b", "weight": 2}, {"path": "talk.json", "weight": 0.25, "images": "pictures"}]
    config = load_config(write(VALID, data=mixed))
    assert [(part.path, part.weight, part.images, part.plain) for part in config.data] == [
        ("data/a", 1.0, None, False),
        ("data/b", 2.0, None, False),
        ("talk.json", 0.25, "pictures", True),
    ]
    save_config(config, tmp_path)
    assert load_config(tmp_path / "config.yaml") == config
    assert load_config(write(VALID), ["data={path: data/b, weight: 0.5}"]).data[0].weight == 0.5


def test_an_override_may_hold_an_equals_sign(write):
    assert load_config(write(VALID), ["output_dir=runs/lr=1"]).output_dir == "runs/lr=1"


@pytest.mark.parametrize(
    "override, parts",
    [
        ("learning_rte=0.1", ["learning_rte", "unknown key", "known keys", "learning_rate"]),
        ("model.lora.rnk=4", ["model.lora.rnk", "unknown key", "known keys: rank, alpha"]),
        ("model.bse=x", ["model.bse", "unknown key", "known keys: base, "]),
        ("steps=many", ["steps", "integer", "'many'"]),
        ("steps=1.5", ["steps", "integer", "1.5"]),
        ("steps=true", ["steps", "integer", "True"]),
        ("steps=0", ["steps", "greater than or equal to 1", "0"]),
        ("flip=1", ["flip", "boolean", "1"]),
        ("learning_rate=-1", ["learning_rate", "greater than 0", "-1"]),
        ("learning_rate=.nan", ["learning_rate", "finite number", "nan"]),
        ("learning_rate=.inf", ["learning_rate", "finite number", "inf"]),
        ("schedule=cosin", ["schedule", "'cosine', 'linear'", "'cosin'"]),
        ("precision=fp16", ["precision", "'bf16' or 'fp32'", "'fp16'"]),
        ("data=[]", ["data", "at least 1", "[]"]),
        ("trackers=mlflow", ["trackers.0", "'tensorboard' or 'wandb'", "'mlflow'"]),
        ("tower_learning_rate=0", ["tower_learning_rate", "greater than 0", "0"]),
        ("model.pose_geodesic_weight=-1", ["model.pose_geodesic_weight", "greater than or equal to 0", "-1"]),
        ("early_stopping=3", ["keep_best and early_stopping need eval_every"]),
        ("keep_best=true", ["keep_best and early_stopping need eval_every"]),
        ("data=[3]", ["data.0", "valid dictionary", "3"]),
        ("data={path: a, wieght: 2}", ["data.0.wieght", "unknown key", "known keys: path, weight, images"]),
        ("data={weight: 2}", ["data.0.path", "required"]),
        ("data={path: a, weight: -1}", ["data.0.weight", "greater than or equal to 0", "-1"]),
        ("data={path: a, weight: .inf}", ["data.0.weight", "finite number", "inf"]),
        ("data=[{path: a, weight: 0}, {path: b, weight: 0}]", ["data: every weight is 0"]),
        ("data=talk.json", ["data: no data set with poses has a weight above 0"]),
        ("data=[{path: a, weight: 0}, talk.json]", ["data: no data set with poses has a weight above 0"]),
        ("data={path: a, images: b}", ["data.0", "images goes with a .json file"]),
        ("sampling.balance=clas", ["sampling.balance", "'class', 'pose' or 'class_and_pose'", "'clas'"]),
        ("sampling.group_by_lenght=true", ["sampling.group_by_lenght", "unknown key", "known keys: balance"]),
        ("sampling.group_by_length=1", ["sampling.group_by_length", "boolean", "1"]),
        ("output_dir=5", ["output_dir", "string", "5"]),
        ("model.lora.dropout=1", ["model.lora.dropout", "less than 1", "1"]),
        ("steps", ["'steps'", "key=value"]),
        ("=5", ["'=5'", "key=value"]),
        ("steps.more=5", ["'steps.more=5'", "steps is not a section"]),
        ("steps=[", ["'steps=['", "not valid YAML"]),
    ],
)
def test_a_mistake_is_refused_by_key_and_value(write, override, parts):
    message = refused(write(VALID, **LORA), override)
    for part in parts:
        assert part in message


def test_a_mistake_in_the_file_names_the_file(write):
    path = write(VALID, sed=3)
    assert str(path) in refused(path) and "sed: unknown key" in refused(path)


def test_the_number_of_further_mistakes_is_told(write):
    assert refused(write(VALID, steps="x", batch_size="y", seed=-1)).endswith("; and 2 more")


@pytest.mark.parametrize("key", ["output_dir", "data", "model", "steps", "learning_rate"])
def test_a_missing_key_is_named(write, key):
    assert f"{key}: Field required" in refused(write({name: value for name, value in VALID.items() if name != key}))


@pytest.mark.parametrize(
    "model, part",
    [
        ({}, "either base"),
        ({"base": "x", "text": "y"}, "either base"),
        ({"text": {"hidden_size": 8}, "lora": {}}, "lora needs base"),
        ({"base": "x", "base_dtype": "bf16"}, "base_dtype bf16 needs lora"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(write, model, part):
    message = refused(write(VALID, model=model))
    assert "model" in message and part in message


@pytest.mark.parametrize("base_dtype", ["bf16", "nf4"])
def test_a_base_in_half_precision_or_less_is_not_trained_in_full_precision(write, base_dtype):
    model = {"base": "x", "lora": {}, "base_dtype": base_dtype}
    assert f"precision: fp32, but model.base_dtype {base_dtype}" in refused(write(VALID, model=model, precision="fp32"))
    load_config(write(VALID, model=model, precision="bf16"))


@pytest.mark.parametrize(
    "content, part",
    [("- a\n- b\n", "a configuration is a mapping"), ("", "a configuration is a mapping"), ("a: [", "not valid YAML")],
)
def test_files_that_are_no_configuration_are_refused(write, content, part):
    path = write(content)
    assert str(path) in refused(path) and part in refused(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert "no.yaml: cannot read the configuration: No such file" in refused(tmp_path / "no.yaml")
    assert "cannot read the configuration" in refused(tmp_path)


def test_yaml_that_would_run_code_is_refused(write, tmp_path):
    path = write(f"output_dir: !!python/object/apply:os.system ['touch {tmp_path}/ran']\n")
    assert "not valid YAML" in refused(path)
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not valid YAML" in refused(tmp_path / "x.yaml")
