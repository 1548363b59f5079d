"""The demo teaches the embedded model a category: one that it lacks, that can be drawn, and that it has words for."""

import json
import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from data_prep.rendering.shapes import CATEGORIES
from llava_pose import taxonomy
from llava_pose.folders import EMBEDDED, EMBEDDED_MODEL
from train.config import load_config

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()


@pytest.fixture(scope="module")
def named():
    """The categories that the embedded model names."""
    return json.loads((EMBEDDED_MODEL / "config.json").read_text())["pose_categories"]


def setting(name):
    return re.search(rf"^DEMO_{name} \?= (.+)$", MAKEFILE, re.MULTILINE)[1]


def test_the_demos_category_is_new_to_the_embedded_model_and_all_it_knows_can_be_rendered_beside_it(named):
    assert setting("CATEGORY") in CATEGORIES
    assert setting("CATEGORY") not in named
    assert set(named) <= set(CATEGORIES)


def test_the_embedded_models_tokenizer_spells_the_new_name():
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_MODEL)
    name = taxonomy.with_article(setting("CATEGORY"))
    ids = tokenizer(name, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == name and tokenizer.unk_token_id not in ids


def test_every_known_category_has_pictures_to_train_on_and_to_be_tested_on(named):
    assert int(setting("KNOWN_IMAGES")) * 0.2 >= 4 * len(named)
    small = re.search(r"DEMO_IMAGES=(\d+) DEMO_KNOWN_IMAGES=(\d+)", (ROOT / ".ci/run").read_text())
    assert int(small[1]) * 0.2 >= int(setting("PICTURE")), "the picture that is asked about is there"
    assert int(small[2]) >= 4 * len(named)


def test_the_demos_recipe_adds_an_adapter_to_the_embedded_model():
    model = load_config(ROOT / "train/recipes/demo.yaml").model
    assert model.base == EMBEDDED and model.lora is not None
