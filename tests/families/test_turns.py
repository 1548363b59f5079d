"""Every family's conversations go on where they were left, and stand side by side, whatever tokens its images take."""

from typing import Any

import pytest
from PIL import Image

from llava_pose.engine import Engine
from llava_pose.generation import Answer, Answering, Request
from llava_pose.image_inputs import ImageInputs
from llava_pose.processing import assistant_message, user_message
from tests.families.conftest import Small


def together(engine: Engine, requests: list[Request]) -> list[list[int]]:
    """The tokens of each answer."""
    answering, found = Answering(engine), dict[Request, Answer]()
    for request in requests:
        answering.add(request)
    while answering.running:
        found |= dict(answering.step())
    return [found[request].tokens for request in requests]


def test_turns_go_on_and_stand_side_by_side_as_each_would_alone(
    family: Small, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(family.model, family.processor)
    own = [engine.pixels([picture]) for picture in pictures]
    first = [user_message("Which way does it face?", images=1)]
    later = [*first, assistant_message("Left <pose>."), user_message("And this one, beside the other?", images=1)]
    talks = [
        (later, ImageInputs.join([own[0], own[1]])),
        (later, ImageInputs.join([own[2], own[0]])),
        ([user_message("What?", images=2)], ImageInputs.join(own[1:])),
        ([user_message("No picture at all?")], None),
    ]
    requests = [Request(talk, images, 6) for talk, images in talks]
    expected = [Engine(family.model, family.processor).answer(talk, images, 6).tokens for talk, images in talks]
    assert together(engine, requests) == expected

    engine = Engine(family.model, family.processor)
    for picture in (own[0], own[2]):
        engine.answer(first, picture, 6)
    looked_at = []
    backbone = family.model.backbone

    def watched(**inputs: Any) -> Any:
        looked_at.extend([len(inputs["pixel_values"])] if "pixel_values" in inputs else [])
        return backbone(**inputs)

    monkeypatch.setattr(family.model, "backbone", watched)
    assert together(engine, requests) == expected
    assert sum(looked_at) == 4, "the second picture of each follow-up, and the two that are new"
    assert together(engine, requests) == expected
    assert sum(looked_at) == 4
