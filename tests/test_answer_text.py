"""An answer's text as its tokens come: against decoding all of them at once, and never taken back."""

from typing import Any

import numpy as np
import pytest

from llava_pose.answer_text import AnswerText, before_stop
from llava_pose.processing import without_marks


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def spelled(tokenizer: Any, text: str) -> list[int]:
    """A token for each character."""
    vocabulary = tokenizer.get_vocab()
    return [vocabulary.get(character, vocabulary.get(f"<0x{ord(character):02X}>")) for character in text]


def texts_of(processor: Any, tokens: list[int], stops: tuple[str, ...] = ()) -> list[str]:
    """The text after each token, and at the end."""
    growing = AnswerText(processor, stops)
    texts = []
    for token in tokens:
        growing.add(token)
        texts.append(growing.text(False)[0])
    return [*texts, growing.text(True)[0]]


def at_once(processor: Any, tokens: list[int]) -> str:
    """The text of all tokens, a mark for each <pose> among them and for nothing else."""
    stand_in = "\N{BLACK STAR}"
    ids = [ids_of(processor.tokenizer, "x")[-1] if token == processor.pose_token_id else token for token in tokens]
    decode = processor.tokenizer.decode
    pieces, start = [], 0
    for place, token in enumerate(tokens):
        if token == processor.pose_token_id:
            pieces.append(decode(ids[:place])[start:])
            start = len(decode(ids[: place + 1]))
    pieces.append(decode(ids)[start:])
    text = f" {stand_in}".join(without_marks(piece) for piece in pieces)
    return " ".join(text.split()).replace(stand_in, "<pose>")


WORDS = ["A car", " beside a", " train", "é", "日本", "🚲", " station.", "\n", "  ", " It faces"]
SPELLED = ["<", "<po", "<pose>", "<image>", "<<pose>", "pose>", "<pose"]


@pytest.mark.parametrize("pair", ["tiny_pair", "released_pair"])
def test_text_that_grows_is_the_text_of_all_tokens_and_is_never_taken_back(
    pair: str, request: pytest.FixtureRequest
) -> None:
    _, processor = request.getfixturevalue(pair)
    rng = np.random.default_rng(0)
    marks = 0
    for _ in range(60):
        words = rng.choice(WORDS, size=rng.integers(1, 12))
        tokens: list[int] = []
        for word in words:
            tokens += ids_of(processor.tokenizer, str(word))
            if rng.random() < 0.3:
                tokens += spelled(processor.tokenizer, str(rng.choice(SPELLED)))
            if rng.random() < 0.2:
                tokens.append(processor.pose_token_id)
        *growing, whole = texts_of(processor, tokens)
        assert whole == at_once(processor, tokens)
        for earlier, later in zip(growing, [*growing[1:], whole], strict=True):
            assert later.startswith(earlier)
        marks += whole.count("(pose)") + whole.count("(image)")
        assert whole.count("<pose>") == tokens.count(processor.pose_token_id)
        assert "<image>" not in whole
    assert marks > 0, "some marks were spelled out in pieces"


@pytest.mark.parametrize("pair", ["tiny_pair", "released_pair"])
def test_any_tokens_at_all_have_a_text_that_only_grows(pair: str, request: pytest.FixtureRequest) -> None:
    _, processor = request.getfixturevalue(pair)
    rng = np.random.default_rng(1)
    for _ in range(60):
        tokens = rng.integers(0, len(processor.tokenizer), 30).tolist()
        *growing, whole = texts_of(processor, tokens)
        for earlier, later in zip(growing, [*growing[1:], whole], strict=True):
            assert later.startswith(earlier)
        assert whole.count("<pose>") == tokens.count(processor.pose_token_id)


def test_a_character_shows_when_its_last_byte_is_there(released_pair: tuple[Any, Any]) -> None:
    processor = released_pair[1]
    tokens = ids_of(processor.tokenizer, "🚲")
    assert len(tokens) >= 4
    *growing, last, whole = texts_of(processor, tokens)
    assert set(growing) == {""} and last == whole == "🚲"
    assert "\N{REPLACEMENT CHARACTER}" in texts_of(processor, tokens[:-1])[-1], "at the end what is there is shown"


def test_the_space_before_a_word_stays_behind_a_pose_and_behind_a_special_token(released_pair: tuple[Any, Any]) -> None:
    processor = released_pair[1]
    first, second = ids_of(processor.tokenizer, "A car"), ids_of(processor.tokenizer, "train station")
    for between, expected in (
        (processor.pose_token_id, "A car <pose> train station"),
        (processor.tokenizer.bos_token_id, "A car train station"),
    ):
        assert texts_of(processor, [*first, between, *second])[-1] == expected


def test_an_answer_ends_before_its_stop_and_no_beginning_of_one_is_shown(released_pair: tuple[Any, Any]) -> None:
    processor = released_pair[1]
    tokens = ids_of(processor.tokenizer, "A car.\n\nUSER: What")
    growing = AnswerText(processor, ("\n\n", "USER:"))
    found = []
    for token in tokens:
        growing.add(token)
        found.append(growing.text(False))
    assert found[-1] == ("A car.", True)
    assert all("A car.".startswith(text) for text, _ in found)
    assert texts_of(processor, ids_of(processor.tokenizer, "A US"), ("USER:",))[-2:] == ["A", "A US"]


def test_the_first_stop_wins_and_an_end_is_no_beginning_of_one() -> None:
    assert before_stop("one two three", ("three", "two"), False) == ("one ", True)
    assert before_stop("one tw", ("two",), False) == ("one ", False)
    assert before_stop("one tw", ("two",), True) == ("one tw", False)
    assert before_stop("aab", ("aaba", "b!"), False) == ("", False)
    assert before_stop("one", (), False) == ("one", False)
