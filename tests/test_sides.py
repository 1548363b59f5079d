"""Texts about mirror images: sides are swapped, other meanings of left and right stop it."""

import pytest

from llava_pose.sides import mirrored_text, swapped_sides

SIDES = {
    "A car <pose> is to the left of a bench <pose>.": "A car <pose> is to the right of a bench <pose>.",
    "From left to right: a car and a bench.": "From right to left: a car and a bench.",
    "On the far right stands a bus.": "On the far left stands a bus.",
    "On the right, a bus; on the left, a car.": "On the left, a bus; on the right, a car.",
    "A bus in the upper left corner.": "A bus in the upper right corner.",
    "The bus shows its left side.": "The bus shows its right side.",
    "The bus shows its own right-hand door.": "The bus shows its own left-hand door.",
    "The leftmost car faces right.": "The rightmost car faces left.",
    "A left-facing car in the Right-hand lane.": "A right-facing car in the Left-hand lane.",
    "It leans leftwards, turned clockwise.": "It leans rightwards, turned counterclockwise.",
    "It is turned counter-clockwise.": "It is turned clockwise.",
    "TO THE LEFT OF A CAR": "TO THE RIGHT OF A CAR",
    "A car seen from its front-left.": "A car seen from its front-right.",
}


@pytest.mark.parametrize("text", SIDES)
def test_sides_change_places_and_back(text):
    assert mirrored_text(text) == SIDES[text]
    if "counter-" not in text:
        assert mirrored_text(SIDES[text]) == text


@pytest.mark.parametrize(
    "text",
    [
        "A car right next to a bench.",
        "A cup left on the table.",
        "A car on the right track.",
        "It came at the right moment.",
        "What is left of a wall, with a car to the left of it.",
        "A car turns into a right angle.",
    ],
)
def test_a_left_or_right_that_may_be_no_side_is_left_alone(text):
    assert mirrored_text(text) is None


@pytest.mark.parametrize("text", ["", "A car <pose> beside a chair <pose>.", "A bright, copyrighted, upright cleft."])
def test_text_without_sides_is_itself(text):
    assert mirrored_text(text) == text


def test_words_known_to_be_sides_are_swapped_where_a_text_would_leave_doubt():
    assert mirrored_text("the right one, tilted clockwise") is None
    assert swapped_sides("the right one, tilted clockwise") == "the left one, tilted counterclockwise"
    assert swapped_sides("brightly left behind") == "brightly right behind"
