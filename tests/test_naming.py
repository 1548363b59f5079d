"""Naming images: what each option gives, what is refused, beginnings shared by prompts, and calls from threads."""

import copy
import resource
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from llava_pose import conversation, decoding
from llava_pose import engine as engine_module
from llava_pose.bins import PoseBins
from llava_pose.calibration import Calibration, Line, Powers
from llava_pose.engine import Engine
from llava_pose.errors import UserError
from llava_pose.processing import assistant_message, user_message
from tests.released import noise
from tests.test_decoding import slow_judge
from tests.test_trie import sequences_of

CATEGORIES = ["car", "sofa", "bicycle", "bicycle_built_for_two", "train", "train_station", "bus"]
SYSTEM = {
    "role": "system",
    "content": [{"type": "text", "text": "A chat between a curious human and a helpful assistant that knows 3D."}],
}


@pytest.fixture
def engine(released_pair):
    return Engine(*released_pair)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (40 + 9 * i, 50, 3), dtype=np.uint8)) for i in range(4)]


def pose_logits(engine, picture, category, mirrored=False):
    """The pose logits of a whole forward pass over the question and the answer that names this category."""
    talk = [*conversation.naming_messages(), assistant_message(conversation.naming_answer(category))]
    ids = torch.from_numpy(engine.processor.encode(talk)[0])[None]
    with torch.no_grad():
        pixels = engine.processor.pixels([picture]).tensors["pixel_values"]
        pixels = pixels.flip(-1) if mirrored else pixels
        return engine.model(input_ids=ids, pixel_values=pixels).pose_logits[0].numpy()


def assert_same(first, second, atol=1e-4):
    assert first.names == second.names
    np.testing.assert_allclose(first.pose_logits, second.pose_logits, atol=atol)
    np.testing.assert_allclose(first.probabilities, second.probabilities, atol=atol)


@pytest.mark.parametrize("distribution", [True, False])
def test_poses_are_read_at_the_best_names_and_at_the_given_one(engine, pictures, distribution):
    trie, given = engine.name_trie(CATEGORIES), [3, 0, 5, 5]
    namings = engine.name(pictures, trie, top_k=3, distribution=distribution, given=given)
    for picture, naming, name in zip(pictures, namings, given, strict=True):
        assert len(naming.names) == len(naming.readings) == 3
        assert naming.index == naming.names[0] and naming.reading is naming.readings[0]
        for place, index in enumerate(naming.names):
            logits = pose_logits(engine, picture, CATEGORIES[index])
            np.testing.assert_allclose(naming.pose_logits[place], logits, atol=1e-4)
            expected = PoseBins().probabilities(logits.astype(np.float64))
            np.testing.assert_allclose(naming.readings[place].distributions, expected, atol=1e-5)
        expected = PoseBins().probabilities(pose_logits(engine, picture, CATEGORIES[name]).astype(np.float64))
        np.testing.assert_allclose(naming.given.distributions, expected, atol=1e-5)


def test_without_the_distribution_the_best_names_are_the_same(engine, pictures):
    trie = engine.name_trie(CATEGORIES)
    whole = engine.name(pictures, trie, top_k=2)
    for naming, expected in zip(engine.name(pictures, trie, top_k=2, distribution=False), whole, strict=True):
        assert naming.names == expected.names and naming.given is None
        np.testing.assert_allclose(naming.pose_logits, expected.pose_logits, atol=1e-4)
        missing = np.where(np.isnan(naming.log_probabilities), expected.probabilities, 0).sum()
        assert missing - 1e-6 <= naming.unexplored <= 1
        assert naming.probabilities.sum() + naming.unexplored == pytest.approx(1)


def test_the_prior_is_what_a_name_scores_without_an_image(engine, pictures):
    trie = engine.name_trie(CATEGORIES, "prior")
    (naming,) = engine.name(pictures[:1], trie)
    prompt = engine.processor.encode([user_message(conversation.NAMING_QUESTION)])[0].tolist()
    for index, sequence in enumerate(sequences_of(trie)):
        ids = torch.tensor([[*prompt, *sequence]])
        with torch.no_grad():
            logits = engine.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].log_softmax(-1)
        prior = sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(sequence))
        assert trie.offsets[index] == pytest.approx(prior, abs=1e-4)
    scores = naming.log_probabilities - trie.offsets
    np.testing.assert_allclose(naming.probabilities, np.exp(scores) / np.exp(scores).sum(), atol=1e-6)
    assert naming.index == scores.argmax()


def test_a_temperature_flattens_the_probabilities_and_keeps_the_ranking(engine, pictures):
    (plain,) = engine.name(pictures[:1], engine.name_trie(CATEGORIES), top_k=9)
    (flat,) = engine.name(pictures[:1], engine.name_trie(CATEGORIES, temperature=4.0), top_k=9)
    assert flat.names == plain.names and len(plain.names) == len(CATEGORIES), "no more names than there are"
    expected = plain.probabilities**0.25
    np.testing.assert_allclose(flat.probabilities, expected / expected.sum(), rtol=1e-6)


def test_pixels_made_ahead_give_what_their_images_give(engine, pictures):
    trie = engine.name_trie(CATEGORIES)
    pairs = zip(engine.name(engine.pixels(pictures), trie), engine.name(pictures, trie), strict=True)
    for first, second in pairs:
        assert_same(first, second, atol=0)


def test_no_images_have_no_names(engine):
    assert engine.name([], engine.name_trie(CATEGORIES)) == []


@pytest.mark.parametrize("distribution", [True, False])
def test_one_name_alone_is_certain(engine, pictures, distribution):
    (naming,) = engine.name(pictures[:1], engine.name_trie(["car"]), distribution=distribution, top_k=3)
    assert naming.names == (0,) and naming.probabilities.tolist() == [1.0] and naming.unexplored == 0
    np.testing.assert_allclose(naming.pose_logits[0], pose_logits(engine, pictures[0], "car"), atol=1e-4)


@pytest.mark.parametrize(
    "categories, match",
    [
        ([], "categories: no name given"),
        (["car", "bus", "car"], "categories: 'car' is given twice"),
        (["dining_table", "diningtable"], "categories: 'diningtable' and 'dining_table' are the same tokens"),
        (["car", ""], "categories: '' is a name without tokens"),
        (["_ _"], "categories: '_ _' is a name without tokens"),
        (["<pose>"], "categories: '<pose>' holds a mark"),
        (["an <image> of a car"], "categories: 'an <image> of a car' holds a mark"),
    ],
)
def test_names_that_cannot_be_told_apart_or_said_are_refused(tiny_pair, released_pair, categories, match):
    for pair in (tiny_pair, released_pair):
        with pytest.raises(UserError, match=match):
            Engine(*pair).name_trie(categories)


@pytest.mark.parametrize("options", [{"scoring": "best"}, {"temperature": -1.0}])
def test_scorings_and_temperatures_that_mean_nothing_are_refused(engine, options):
    with pytest.raises(UserError, match=f"^{next(iter(options))}: "):
        engine.name_trie(CATEGORIES, **options)


def test_a_category_under_two_names_is_refused_by_both(engine):
    from llava_pose.api import LlavaPose

    model = LlavaPose(engine)
    with pytest.raises(UserError, match="categories: 'Dining Table' and 'diningtable' are the same category"):
        model.predict([], categories=["car", "diningtable", "Dining Table"])
    with pytest.raises(UserError, match="no name given"):
        model.predict([], categories=[])


def test_an_attention_that_ignores_the_tree_is_refused(released_pair, pictures):
    model = copy.deepcopy(released_pair[0])
    model.config.text_config._attn_implementation = "flash_attention_2"
    engine = Engine(model, released_pair[1])
    with pytest.raises(UserError, match="attn_implementation: 'flash_attention_2' cannot score names"):
        engine.name(pictures, engine.name_trie(CATEGORIES))


@pytest.fixture(scope="module")
def many(released_pair):
    engine = Engine(*released_pair)
    words = ["car", "bus", "boat", "train", "beside", "camera", "photo", "station", "left", "right"]
    names = [" ".join(words[int(digit)] for digit in f"{number:04d}") for number in range(10_000)]
    return engine, names, engine.name_trie(names)


@pytest.mark.parametrize("distribution", [True, False])
def test_ten_thousand_names_are_scored_in_bounded_memory(many, pictures, distribution, monkeypatch):
    engine, names, trie = many
    assert len(trie.ends) == 10_000
    largest = []
    tree_pass = decoding._tree_pass

    def watched(model, prefill, trie, nodes, seen):
        largest.append(max(len(row) * row_seen.shape[1] for row, row_seen in zip(nodes, seen, strict=True)))
        return tree_pass(model, prefill, trie, nodes, seen)

    monkeypatch.setattr(decoding, "_tree_pass", watched)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (naming,) = engine.name(pictures[:1], trie, distribution=distribution)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024, "kilobytes"
    assert max(largest) <= 1100**2, "no attention over all nodes at once"
    some = [naming.index, 17, 4242, 9999]
    expected, _ = slow_judge(
        engine, conversation.NAMING_QUESTION, engine.pixels(pictures[:1]), [sequences_of(trie)[i] for i in some]
    )
    found = naming.log_probabilities[some]
    np.testing.assert_allclose(found[np.isfinite(found)], expected[np.isfinite(found)], atol=1e-4)
    assert np.isfinite(found).all() or not distribution
    assert found[0] >= expected.max() - 1e-4


def test_search_among_ten_thousand_finds_the_winner_of_all(many, pictures):
    engine, _, trie = many
    (whole,) = engine.name(pictures[:1], trie)
    (found,) = engine.name(pictures[:1], trie, distribution=False)
    assert found.index == whole.index and found.nodes < whole.nodes


def with_system(question):
    return [SYSTEM, user_message(question, images=1)]


def test_a_beginning_that_prompts_share_is_run_once_and_changes_nothing(engine, monkeypatch):
    questions = ["What is this object, and how is it posed?", "What?", "Which of many things is it, and how posed?"]
    prompts = [with_system(question) for question in questions]
    pixels = noise(engine.processor, 3)
    trie = engine.name_trie(CATEGORIES)
    runs = []
    backbone = engine.model.backbone

    def watched(**inputs):
        runs.append(inputs["input_ids"].shape)
        return backbone(**inputs)

    monkeypatch.setattr(engine.model, "backbone", watched)

    def scores():
        with torch.inference_mode():
            state = engine.prefill(prompts, pixels)
            return decoding.score_names(engine.model, state, trie), state.lengths

    shared, lengths = scores()
    prefix = runs[0][1]
    assert runs[0][0] == 1 and prefix >= engine_module.SHARED_PREFIX
    assert runs[1] == (3, max(engine.prompt_length(prompt) for prompt in prompts) - prefix)
    assert lengths.tolist() == [engine.prompt_length(prompt) for prompt in prompts]
    runs.clear()
    again, _ = scores()
    assert runs[0][0] == 3, "kept from the first time"
    torch.testing.assert_close(again, shared, rtol=0, atol=0)

    monkeypatch.setattr(engine_module, "SHARED_PREFIX", 10_000)
    runs.clear()
    alone, _ = scores()
    assert runs[0] == (3, max(engine.prompt_length(prompt) for prompt in prompts))
    torch.testing.assert_close(shared, alone, rtol=0, atol=1e-4)


def test_few_beginnings_are_kept(engine):
    pixels = noise(engine.processor)
    for number in range(2 * engine_module.PREFIXES_KEPT):
        words = {"role": "system", "content": [{"type": "text", "text": f"Assistant number {number} " * 5}]}
        engine.prefill([[words, user_message("What?", images=1)]], pixels)
        assert 1 <= len(engine._prefixes) <= engine_module.PREFIXES_KEPT


def test_nothing_is_shared_where_prompts_begin_unlike_or_with_the_image(engine):
    def shared(*prompts):
        return engine._shared_length([engine.processor.encode(prompt)[0] for prompt in prompts])

    assert shared(with_system("What?"), with_system("Where?")) >= engine_module.SHARED_PREFIX
    assert shared(with_system("What?"), [user_message("Where?", images=1)]) == 0
    assert shared([user_message("What?", images=1)]) == 0, "too short to pay"
    assert shared([SYSTEM, user_message("No image, " * 20)]) == 0


@pytest.mark.parametrize("distribution", [True, False])
def test_threads_that_share_an_engine_get_what_one_alone_gets(released_pair, pictures, distribution):
    engine = Engine(*released_pair)
    trie = engine.name_trie(CATEGORIES)
    talk = with_system("What is this?")
    pixels = [engine.pixels([picture]) for picture in pictures]
    expected = [engine.name([picture], trie, distribution=distribution)[0] for picture in pictures]
    # Another engine: the threads also race for the beginning it keeps.
    texts = [Engine(*released_pair).answer(talk, value, max_new_tokens=6).text for value in pixels]
    with ThreadPoolExecutor(8) as pool:
        jobs = [i % 4 for i in range(32)]
        namings = pool.map(lambda i: engine.name([pictures[i]], trie, distribution=distribution)[0], jobs)
        answers = pool.map(lambda i: engine.answer(talk, pixels[i], max_new_tokens=6).text, jobs)
        for i, naming, text in zip(jobs, namings, answers, strict=True):
            assert_same(naming, expected[i], atol=1e-6)
            assert text == texts[i]


@pytest.mark.parametrize("distribution", [True, False])
def test_flipping_averages_the_logits_of_the_picture_and_of_its_mirror_image_mapped_back(
    engine, pictures, distribution
):
    trie = engine.name_trie(CATEGORIES)
    namings = engine.name(pictures, trie, top_k=2, distribution=distribution, given=[1, 2, 3, 4], flip=True)
    plain = engine.name(pictures, trie, top_k=2, distribution=distribution, given=[1, 2, 3, 4])
    for picture, naming, without in zip(pictures, namings, plain, strict=True):
        assert naming.names == without.names
        np.testing.assert_array_equal(naming.probabilities, without.probabilities)
        for place, index in enumerate(naming.names):
            straight, back = (pose_logits(engine, picture, CATEGORIES[index], way) for way in (False, True))
            back[[0, 2]] = back[[0, 2], ::-1]
            np.testing.assert_allclose(naming.pose_logits[place], (straight + back) / 2, atol=1e-4)
            assert not np.allclose(naming.pose_logits[place], straight, atol=1e-3)


def test_a_calibrated_model_brings_its_temperature_and_its_confidence(released_pair, pictures):
    model = copy.copy(released_pair[0])
    model.calibration = Calibration(40, Line(0.5, 0.1), Powers(1.0, 0.0, 0.3), Line(0.8, 0.2), 2.5, 100, "data", "val")
    engine, own = Engine(model, released_pair[1]), Engine(*released_pair)
    [found] = engine.name(pictures[:1], engine.name_trie(CATEGORIES))
    [plain] = own.name(pictures[:1], own.name_trie(CATEGORIES))
    [asked] = engine.name(pictures[:1], engine.name_trie(CATEGORIES, temperature=1.0))
    sharpened = found.probabilities**2.5
    np.testing.assert_allclose(sharpened / sharpened.sum(), plain.probabilities, atol=1e-6)
    np.testing.assert_allclose(asked.probabilities, plain.probabilities, atol=1e-6)
    assert found.reading.calibrated and not plain.reading.calibrated
    assert found.reading.confidence == pytest.approx(float(model.calibration.hit(plain.reading.confidence)))
    named = found.probabilities[found.index]
    both = float(model.calibration.hit_and_class(found.reading.confidence, named))
    assert found.joint_confidence == pytest.approx(both)
    own_word = plain.reading.confidence * plain.probabilities[plain.index]
    assert plain.joint_confidence == pytest.approx(own_word)
    # The temperature was fitted to sums: another way of scoring keeps its own scale.
    assert engine.name_trie(CATEGORIES, "mean").temperature == 1.0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("distribution", [True, False])
def test_a_gpu_names_as_the_cpu_does_from_page_locked_pixels(released_pair, pictures, distribution):
    cpu = Engine(*released_pair)
    gpu = Engine(copy.deepcopy(released_pair[0]).to("cuda"), released_pair[1])
    pixels = gpu.pixels(pictures)
    assert pixels.tensors["pixel_values"].is_pinned()
    trie, given = cpu.name_trie(CATEGORIES), [0, 1, 2, 3]
    expected = cpu.name(pictures, trie, top_k=2, distribution=distribution, given=given)
    for first, second in zip(
        gpu.name(pixels, trie, top_k=2, distribution=distribution, given=given), expected, strict=True
    ):
        assert_same(first, second, atol=1e-3)
