"""Messages to tokens: labels, image tokens, padding, <pose>, with our small tokenizer and with one like Llama's."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from llava_pose.families.llava import LlavaPoseProcessor, square
from llava_pose.processing import assistant_message, user_message, without_marks

TALK = [
    user_message("What is this object, and how is it posed?", images=1),
    assistant_message("car <pose>."),
    user_message("Which way is the car facing?"),
    assistant_message("The car <pose> faces away from the camera and to the left of the picture."),
]


@pytest.fixture(params=["small", "llama"])
def processor(request):
    """Both kinds of tokenizer: byte-level without a start token, and spaces as ▁ with <s> before everything."""
    return request.getfixturevalue("tiny_pair" if request.param == "small" else "released_pair")[1]


def runs(labels):
    """The stretches of supervised labels."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], labels != -100, [0]])))
    return [labels[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]


def test_the_text_is_llavas_own(processor):
    text, _ = processor.render(TALK)
    assert text == (
        "USER: <image>\nWhat is this object, and how is it posed? ASSISTANT: car <pose>.</s>"
        "USER: Which way is the car facing? ASSISTANT: "
        "The car <pose> faces away from the camera and to the left of the picture.</s>"
    )


def test_threads_may_encode_side_by_side(processor):
    text, interval = processor.render(TALK), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert all(found == text for found in pool.map(lambda _: processor.render(TALK), range(200)))
    finally:
        sys.setswitchinterval(interval)


def test_the_text_up_to_an_answer_is_the_beginning_of_the_text_with_it(processor):
    for count in (1, 3):
        prompt, whole = processor.encode(TALK[:count])[0], processor.encode(TALK)[0]
        assert prompt.tolist() == whole[: len(prompt)].tolist()


def test_labels_are_the_assistants_words_and_no_others(processor):
    ids, labels = processor.encode(TALK)
    supervised = labels != -100
    np.testing.assert_array_equal(labels[supervised], ids[supervised])
    said = [processor.tokenizer.decode(run).replace(" ", "") for run in runs(labels)]
    assert said == [
        "car<pose>.</s>",
        "Thecar<pose>facesawayfromthecameraandtotheleftofthepicture.</s>",
    ]


def test_labels_equal_what_is_added_when_an_answer_is_added(processor):
    # Found without offsets: the tokens by which the conversation grows with each answer.
    ids, labels = processor.encode(TALK)
    expected = np.full_like(ids, -100)
    for count in (1, 3):
        start, end = len(processor.encode(TALK[:count])[0]), len(processor.encode(TALK[: count + 1])[0])
        expected[start:end] = ids[start:end]
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("answer", ["naïve 🚗 café <pose>!", "<pose>", "", "two  spaces\nand a line", "日本"])
def test_labels_cover_answers_of_any_script(processor, answer):
    ids, labels = processor.encode([user_message("naïve 🚗?", images=1), assistant_message(answer)])
    start = len(processor.encode([user_message("naïve 🚗?", images=1)])[0])
    np.testing.assert_array_equal(labels[start:], ids[start:])
    assert (labels[:start] == -100).all()
    assert labels[-1] == processor.tokenizer.eos_token_id


def test_every_answer_ends_with_one_end_of_sequence_token(processor):
    ids, _ = processor.encode(TALK)
    assert (ids == processor.tokenizer.eos_token_id).sum() == 2


def test_an_image_takes_as_many_tokens_as_the_tower_gives_features(processor):
    ids, labels = processor.encode(TALK)
    at_image = ids == processor.image_token_id
    assert at_image.sum() == processor.image_tokens
    assert (labels[at_image] == -100).all()
    assert np.ptp(np.flatnonzero(at_image)) == processor.image_tokens - 1, "in one piece"


def test_the_number_of_image_tokens_by_hand(tiny_pair, released_pair):
    assert tiny_pair[1].image_tokens == (128 // 16) ** 2
    assert released_pair[1].image_tokens == (32 // 8) ** 2


def test_two_images_are_both_expanded(processor):
    ids, _ = processor.encode([user_message("Compare.", images=2)])
    assert (ids == processor.image_token_id).sum() == 2 * processor.image_tokens


def test_without_an_image_there_is_no_image_token(processor):
    ids, _ = processor.encode([user_message("Hello."), assistant_message("Hello.")])
    assert processor.image_token_id not in ids


def test_our_tokens_equal_those_of_transformers_own_processor(processor):
    picture = Image.new("RGB", (64, 64), "red")
    ids, _ = processor.encode(TALK)
    theirs = processor(images=picture, text=processor.render(TALK)[0], return_tensors="pt")
    assert theirs["input_ids"][0].tolist() == ids.tolist()
    torch.testing.assert_close(theirs["pixel_values"], processor.pixels([picture]).tensors["pixel_values"])


@pytest.mark.parametrize(
    "text, marks",
    [("a car <pose>.", 1), ("<pose>", 1), ("x<pose>y", 1), ("<pose><pose>", 2), ("a  <pose>\n<pose>,", 2)],
)
def test_pose_is_one_token_wherever_it_stands(processor, text, marks):
    ids, _ = processor.encode([user_message("?"), assistant_message(text)])
    assert (ids == processor.pose_token_id).sum() == marks


def test_no_piece_of_space_is_left_before_pose(processor):
    with_space = processor.encode([user_message("?"), assistant_message("a car <pose>.")])[0]
    without = processor.encode([user_message("?"), assistant_message("a car<pose>.")])[0]
    assert with_space.tolist() == without.tolist()


def test_nothing_of_a_long_conversation_is_cut(processor):
    answer = "The car <pose> faces away from the camera. " * 200
    ids, labels = processor.encode([user_message("Go on.", images=1), assistant_message(answer)])
    assert (ids == processor.pose_token_id).sum() == (labels == processor.pose_token_id).sum() == 200
    assert len(ids) > 1800


def test_padding_on_the_right_for_training(tiny_pair):
    _, processor = tiny_pair
    pad = processor.tokenizer.pad_token_id
    rows, labels = [np.array([5, 6, 7]), np.array([8])], [np.array([-100, 6, 7]), np.array([8])]
    batch = processor.pad(rows, "right", labels)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, pad, pad]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 6, 7], [8, -100, -100]]


def test_padding_on_the_left_for_generation(tiny_pair):
    _, processor = tiny_pair
    pad = processor.tokenizer.pad_token_id
    batch = processor.pad([np.array([5, 6, 7]), np.array([8])], "left")
    assert batch["input_ids"].tolist() == [[5, 6, 7], [pad, pad, 8]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert set(batch) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize(
    "text", ["<pose>", "<image>", "<<pose>>", "<<image>>", "<im<pose>age>", "<po<image>se>", "<<<image>>>"]
)
def test_no_users_text_can_pose_as_an_image_or_a_pose(processor, text):
    ids, _ = processor.encode([user_message(without_marks(f"Is {text} this?"), images=1)])
    assert (ids == processor.pose_token_id).sum() == 0
    assert (ids == processor.image_token_id).sum() == processor.image_tokens


def test_plain_words_are_left_as_they_are():
    assert without_marks("Is 3 < 4 > 2? pose, image") == "Is 3 < 4 > 2? pose, image"


def test_a_tokenizer_without_pose_is_refused(released):
    with pytest.raises(ValueError, match="no <pose> token"):
        _ = LlavaPoseProcessor.from_pretrained(released[1]).pose_token_id


def gradient(width, height):
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([columns, rows, columns + rows], -1).astype(np.uint8))


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (41, 20), (30, 30)])
def test_square_pads_with_black_around_the_picture_and_changes_no_pixel(size):
    picture = gradient(*size)
    result = np.asarray(square(picture))
    side = max(size)
    assert result.shape == (side, side, 3)
    x, y = (side - size[0]) // 2, (side - size[1]) // 2
    np.testing.assert_array_equal(result[y : y + size[1], x : x + size[0]], np.asarray(picture))
    assert result.astype(int).sum() == np.asarray(picture).astype(int).sum()


def test_square_turns_the_picture_upright_by_its_exif():
    picture = gradient(40, 20)
    lying = picture.transpose(Image.Transpose.ROTATE_90)
    lying.getexif()[0x0112] = 6  # the camera was turned: show it rotated 90 degrees clockwise
    np.testing.assert_array_equal(np.asarray(square(lying)), np.asarray(square(picture)))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_square_takes_every_kind_of_picture(mode):
    assert square(gradient(40, 20).convert(mode)).mode == "RGB"


def test_pixels_are_normalised_by_the_towers_own_mean_and_deviation(tiny_pair):
    _, processor = tiny_pair
    pictures = [Image.new("RGB", (300, 300), (255, 0, 51)), Image.new("RGB", (20, 20))]
    pixels = processor.pixels(pictures).tensors["pixel_values"]
    assert pixels.shape == (2, 3, 128, 128) and pixels.dtype == torch.float32
    expected = (np.array([1.0, 0.0, 0.2]) - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(pixels[0].mean((1, 2)), expected, atol=1e-5)


def test_a_processor_comes_back_from_disk_the_same(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    again = type(processor).from_pretrained(tmp_path)
    assert again.encode(TALK)[0].tolist() == processor.encode(TALK)[0].tolist()
    assert again.encode(TALK)[1].tolist() == processor.encode(TALK)[1].tolist()
    assert (again.pose_token_id, again.image_tokens) == (processor.pose_token_id, processor.image_tokens)
