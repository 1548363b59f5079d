"""Every family does what LLaVA-1.5 does: names, talks, trains, saves and comes back equal."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from transformers import LlavaOnevisionImageProcessorPil

from llava_pose import LlavaPose, checkpoint, conversation
from llava_pose.bins import PoseBins
from llava_pose.engine import Engine
from llava_pose.errors import UserError
from llava_pose.evaluation import predict_records
from llava_pose.families.llava_onevision import LlavaOnevisionPoseProcessor
from llava_pose.image_inputs import ImageInputs
from llava_pose.processing import assistant_message, user_message
from llava_pose.scene import PosedImage, load_split
from tests.families.released import write_llava_onevision
from tests.released import assert_equal_outputs
from tests.test_trie import sequences_of

CATEGORIES = ["car", "bicycle", "bicycle_built_for_two", "sofa", "train", "train_station"]
TALK = [
    user_message("What is this?", images=1),
    assistant_message("A car <pose>."),
    user_message("Which way does it face?"),
]
TILED = ("llava_next", "llava_onevision", "internvl")


def whole(model, processor, messages, images, extra=()):
    """A plain forward pass over one conversation, more tokens behind it, and its images."""
    ids = torch.tensor([[*processor.encode(messages, images.tokens)[0].tolist(), *extra]])
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids), **images.tensors)


# Conversations and images


def test_our_tokens_are_those_of_transformers_own_processor(family, pictures):
    processor = family.processor
    text = processor.render(TALK)[0].replace("<img><IMG_CONTEXT></img>", "<IMG_CONTEXT>")
    for picture in pictures:
        ids, _ = processor.encode(TALK, processor.pixels([picture]).tokens)
        square = family.name == "llava"
        theirs = processor(
            images=ImageOps.pad(picture, (60, 60)) if square else picture, text=text, return_tensors="pt"
        )
        assert theirs["input_ids"][0].tolist() == ids.tolist()


@pytest.mark.parametrize("size", [(1, 90), (90, 1), (7, 8), (33, 16), (16, 16), (100, 35), (64, 64), (200, 190)])
def test_an_image_of_any_shape_takes_as_many_tokens_as_the_model_gives_features(family, size):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    images = family.processor.pixels([picture])
    assert 0 < images.tokens[0] <= family.processor.image_tokens
    output = whole(family.model, family.processor, TALK[:1], images)
    assert torch.isfinite(output.logits).all()


@pytest.mark.parametrize("seed", range(3))
def test_no_picture_takes_more_tokens_than_image_tokens_says(family, seed):
    processor, sizes = family.processor, np.random.default_rng(seed).integers(1, 300, (700, 2)).tolist()
    if family.name == "internvl":
        counts = [
            processor.image_seq_length
            * processor.image_processor.get_number_of_image_patches(*size, {"crop_to_patches": True})
            for size in sizes
        ]
    else:
        counts = [processor.image_tokens if family.name == "llava" else processor._tokens(*size) for size in sizes]
    assert 0.8 * processor.image_tokens < max(counts) <= processor.image_tokens


def test_no_picture_takes_more_tokens_at_the_released_onevisions_sizes(tmp_path):
    write_llava_onevision(tmp_path)
    processor = LlavaOnevisionPoseProcessor.from_pretrained(tmp_path)
    processor.image_processor, processor.num_image_tokens = LlavaOnevisionImageProcessorPil(), 27 * 27
    processor.vision_aspect_ratio = "anyres_max_9"
    sizes = np.random.default_rng(0).integers(1, 3000, (4000, 2)).tolist()
    counts = [processor._tokens(*size) for size in sizes]
    assert 0.9 * processor.image_tokens < max(counts) <= processor.image_tokens == 729 + int(729 * 10.89) + 6 * 27


def test_tiles_differ_between_pictures_where_a_family_has_them(family, pictures):
    tokens = family.processor.pixels(pictures).tokens
    assert (len(set(tokens)) > 1) == (family.name in TILED)


def test_mirror_images_are_those_of_the_mirrored_pictures(family, pictures):
    mirrored = family.processor.pixels(pictures, flip=True).mirrored
    expected = family.processor.pixels([ImageOps.mirror(picture) for picture in pictures])
    assert mirrored.tokens == expected.tokens
    for name, value in expected.tensors.items():
        torch.testing.assert_close(mirrored.tensors[name], value, rtol=0, atol=1e-5)


def test_labels_are_the_answers_with_the_token_that_ends_them(family):
    processor = family.processor
    talk = [*TALK, assistant_message("To the left.")]
    ids, labels = processor.encode(talk, [3])
    expected = np.full_like(ids, -100)
    for count in (1, 3):
        start, end = len(processor.encode(talk[:count], [3])[0]), len(processor.encode(talk[: count + 1], [3])[0])
        expected[start:end] = ids[start:end]
        at = start + np.flatnonzero(ids[start:end] == processor.stop_token_id)
        assert len(at) == 1
        # What stands between an answer and the next question is not the assistant's.
        expected[at[0] + 1 : end] = -100
    np.testing.assert_array_equal(labels, expected)
    assert (ids == processor.pose_token_id).sum() == 1


def test_no_words_can_pose_as_an_image_or_as_a_turn(family):
    processor = family.processor
    marks = "".join(mark for mark in processor.tokenizer.all_special_tokens if mark != "<pose>")
    plain = processor.encode([user_message("x", images=1), assistant_message("y")], [3])[0]
    ids = processor.encode([user_message(f"x{marks}", images=1), assistant_message(f"y{marks}")], [3])[0]
    for token in processor.tokenizer.all_special_ids:
        assert (ids == token).sum() == (plain == token).sum()


def test_a_template_that_marks_the_answers_itself_is_kept(family, tmp_path):
    own = "{% for m in messages %}{% generation %}{{ m['content'][0]['text'] }}{% endgeneration %}{% endfor %}"
    processor = copy.copy(family.processor)
    processor.chat_template = own
    processor.complete(family.plain.config)
    # InternVL's says nothing of the marks around an image.
    assert (processor.chat_template == own) == (family.name != "internvl")


def test_a_processor_comes_back_from_disk_the_same(family, tmp_path, pictures):
    family.processor.save_pretrained(tmp_path)
    again = type(family.processor).from_pretrained(tmp_path)
    assert again.encode(TALK, [5])[0].tolist() == family.processor.encode(TALK, [5])[0].tolist()
    assert again.pixels(pictures).tokens == family.processor.pixels(pictures).tokens
    assert (again.image_tokens, again.side) == (family.processor.image_tokens, family.processor.side)


# Naming and talking


@torch.inference_mode()
def test_names_score_as_one_pass_for_each_name_in_a_batch_of_pictures_of_any_shape(family, pictures):
    engine = Engine(family.model, family.processor)
    trie = engine.name_trie(CATEGORIES)
    asked = conversation.naming_messages()
    for distribution in (True, False):
        namings = engine.name(pictures, trie, top_k=2, distribution=distribution)
        for picture, naming in zip(pictures, namings, strict=True):
            images = family.processor.pixels([picture])
            before = len(family.processor.encode(asked, images.tokens)[0])
            for index, sequence in enumerate(sequences_of(trie)):
                output = whole(family.model, family.processor, asked, images, sequence)
                steps = output.logits[0, before - 1 : -1].log_softmax(-1)
                score = float(steps[torch.arange(len(sequence)), torch.tensor(sequence)].sum())
                found = naming.log_probabilities[index]
                assert found == pytest.approx(score, abs=1e-4) or (not distribution and np.isnan(found))
                if index == naming.index:
                    np.testing.assert_allclose(naming.pose_logits[0], output.pose_logits[-1].numpy(), atol=1e-4)


def test_poses_read_in_the_mirror_image_too_are_the_mean_of_both(family, pictures):
    engine = Engine(family.model, family.processor)
    trie, bins = engine.name_trie(CATEGORIES), PoseBins()
    given = [0, 1, 2]
    both = engine.read_names(pictures, trie, given, flip=True)
    prepared = engine.read_names(engine.pixels(pictures, flip=True), trie, given, flip=True)
    asked = conversation.naming_messages()
    for picture, index, reading, same in zip(pictures, given, both, prepared, strict=True):
        logits = [
            whole(family.model, family.processor, asked, images, sequences_of(trie)[index]).pose_logits[-1]
            for images in (family.processor.pixels([view]) for view in (picture, ImageOps.mirror(picture)))
        ]
        expected = bins.probabilities(((logits[0] + bins.mirror(logits[1])) / 2).numpy())
        np.testing.assert_allclose(reading.distributions, expected, atol=1e-4)
        np.testing.assert_allclose(same.distributions, expected, atol=1e-4)
    with pytest.raises(ValueError, match="without their mirror images"):
        engine.read_names(engine.pixels(pictures), trie, given, flip=True)


def test_an_answer_is_what_plain_passes_over_the_growing_conversation_say(family, pictures):
    engine = Engine(family.model, family.processor)
    images = engine.pixels(pictures[1:2])
    answer = engine.answer(TALK, images, max_new_tokens=6)
    tokens = []
    for _ in range(6):
        token = int(whole(family.model, family.processor, TALK, images, tokens).logits[0, -1].argmax())
        if token == family.processor.stop_token_id:
            break
        tokens.append(token)
    assert answer.tokens == tokens


def test_an_answer_ends_at_its_wordings_own_mark_and_reads_its_poses(family, pictures):
    model, processor = copy.deepcopy(family.model), family.processor
    taught = processor.encode([*TALK, assistant_message("Left <pose>.")], [0])
    answer = taught[0][taught[1] != -100][-4:].tolist()
    teach(model, processor, pictures[0], answer)
    found = LlavaPose(Engine(model, processor)).chat(pictures[0], [{"role": "user", "content": "Which way?"}])
    assert found.complete and found.tokens == answer[:-1]
    assert len(found.readings) == found.text.count("<pose>") == 1


def teach(model, processor, picture, answer):
    """Let the model answer "Which way?" about a picture by these tokens: its output matrix is fitted to them."""
    images = processor.pixels([picture])
    output = whole(model, processor, [user_message("Which way?", images=1)], images, answer[:-1])
    states = output.last_hidden_state[0, -len(answer) :]
    torch.manual_seed(0)
    head = torch.nn.Linear(states.shape[1], model.lm_head.out_features, bias=False)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(states), torch.tensor(answer)).backward()
        optimizer.step()
    model.lm_head = head.requires_grad_(False)


def test_a_conversation_may_hold_two_pictures_of_different_shapes(family, pictures):
    engine = Engine(family.model, family.processor)
    talk = [user_message("This?", images=1), assistant_message("A car."), user_message("And this?", images=1)]
    images = engine.pixels(pictures[1:])
    state = engine.prefill([talk], images)
    expected = whole(family.model, family.processor, talk, images)
    torch.testing.assert_close(state.last_hidden[0], expected.last_hidden_state[0, -1], rtol=0, atol=1e-4)
    # Beside another with one picture of another shape, padded on the left.
    both = engine.prefill([talk, TALK], ImageInputs.join([images, engine.pixels(pictures[:1])]))
    torch.testing.assert_close(both.last_hidden[0], state.last_hidden[0], rtol=0, atol=1e-4)


# Training, saving, loading


def training_batch(processor, pictures):
    talks = [[user_message("?", images=1), assistant_message(f"A car <pose>{' here' * i}.")] for i in range(3)]
    images = [processor.pixels([picture]) for picture in pictures]
    ids, labels = zip(*(processor.encode(t, i.tokens) for t, i in zip(talks, images, strict=True)), strict=True)
    poses = torch.tensor([[0.1, 0.2, 0.3], [2.0, 0.1, 0.0], [4.0, 0.5, 6.0]])
    return [
        {
            **processor.pad(ids[rows], "right", labels[rows]),
            **ImageInputs.join(images[rows]).tensors,
            "poses": poses[rows],
        }
        for rows in (slice(0, 3), slice(0, 1), slice(1, 2), slice(2, 3))
    ]


def test_losses_of_a_batch_are_those_of_its_rows(family, pictures):
    batch, *singles = training_batch(family.processor, pictures)
    tokens = int((batch["labels"] != -100).sum())
    with torch.no_grad():
        together = family.model(**batch)
        alone = [family.model(**row, num_items_in_batch=tokens, num_poses_in_batch=3) for row in singles]
    torch.testing.assert_close(together.loss, sum(row.loss for row in alone), rtol=0, atol=1e-5)
    torch.testing.assert_close(together.pose_logits, torch.cat([row.pose_logits for row in alone]), rtol=0, atol=1e-4)


def outputs(model, processor, pictures):
    return whole(model.eval(), processor, TALK, processor.pixels(pictures[1:2]))


def test_a_saved_model_comes_back_equal(family, tmp_path, pictures):
    checkpoint.save(family.model, family.processor, tmp_path / "saved")
    again, processor = checkpoint.load(tmp_path / "saved")
    assert type(again) is type(family.model) and type(processor) is type(family.processor)
    assert_equal_outputs(outputs(again, processor, pictures), outputs(family.model, family.processor, pictures))
    half, _ = checkpoint.load(tmp_path / "saved", torch.bfloat16)
    assert {value.dtype for value in half.pose_head.parameters()} == {torch.float32}
    assert half.lm_head.weight.dtype == torch.bfloat16


def lora_settings(folder, **more):
    model = {"base": str(folder), "lora": {"rank": 4, "alpha": 8}, "pose_hidden_size": 32, **more}
    return {"model": model, "steps": 2, "cache_features": False, "learning_rate": 0.01}


def test_a_finetuned_adapter_comes_back_evaluates_and_chats(family, run, data_dir, pictures, monkeypatch):
    folder = run(family.name, **lora_settings(family.folder))
    model, processor = checkpoint.load(folder / "final")
    assert type(model) is type(family.model)
    for matrix in ("get_input_embeddings", "get_output_embeddings"):
        after, before = (getattr(each, matrix)().weight for each in (model, family.model))
        changed = (after != before).any(-1).nonzero().flatten().tolist()
        assert changed == [processor.pose_token_id], "of the vocabulary the row of <pose> alone is trained"
    tied = family.name == "llava_onevision"
    assert torch.equal(model.lm_head.weight, model.get_input_embeddings().weight) == tied
    assert not torch.equal(projector(model), projector(family.model))
    assert torch.equal(tower(model), tower(family.model))

    records = [row for row in map(PosedImage.from_row, load_split(data_dir, "val")) if len(row.objects) == 1]
    engine = Engine(model, processor)
    lines = list(predict_records(engine, records, ["car", "sofa", "bicycle"], batch_size=4))
    alone = list(predict_records(engine, records[1:2], ["car", "sofa", "bicycle"], batch_size=1))
    assert len(lines) == len(records) and all(line["pose_error"] is not None for line in lines)
    assert lines[1]["class_probability"] == pytest.approx(alone[0]["class_probability"], abs=1e-4)
    assert lines[1]["azimuth"] == pytest.approx(alone[0]["azimuth"], abs=1e-3)

    monkeypatch.setattr("llava_pose.api.MAX_NEW_TOKENS", 20)
    chat = LlavaPose.from_pretrained(folder / "final")
    messages = [{"role": "user", "content": "What is this?"}]
    first = chat.chat(pictures[1], messages)
    assert len(first.readings) == first.text.count("<pose>")
    messages += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "And its front?"}]
    followed = chat.chat(pictures[1], messages)
    assert len(followed.readings) == followed.text.count("<pose>")
    [found] = chat.predict(pictures[1], ["car", "sofa"], boxes=[2, 2, 40, 18], flip=True)
    assert found.category in ("car", "sofa") and np.isfinite(found.pose).all()


def test_what_differs_from_picture_to_picture_is_not_cached(family, run):
    settings = lora_settings(family.folder) | {"cache_features": True}
    if family.name in TILED:
        with pytest.raises(UserError, match="cache_features: this model sees a picture in tiles"):
            run("cached", **settings)
    else:
        assert (run("cached", **settings) / "final").is_dir()


def projector(model):
    return next(model.model.multi_modal_projector.parameters())


def tower(model):
    return torch.cat([value.flatten() for value in model.model.vision_tower.parameters()])
