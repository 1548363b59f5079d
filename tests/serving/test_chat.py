"""``/v1/chat/completions`` by the real clients, against what the library answers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from PIL import Image
from pydantic import SecretStr

from llava_pose import LlavaPose
from llava_pose.images import crop_box
from tests.serving.running import SAMPLES, TURN, Served, asked, data_url, picture_part, refusal

CHAT = "/v1/chat/completions"
MODEL = "llava-pose"


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="not needed", max_retries=0) as made:
        yield made


def events(text: str) -> list[dict[str, Any]]:
    """The chunks of a stream, which must end as OpenAI's do."""
    *chunks, end, nothing = text.split("\n\n")
    assert (end, nothing) == ("data: [DONE]", "")
    return [json.loads(chunk.removeprefix("data: ")) for chunk in chunks]


def same_numbers(pose: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(pose[axis] == pytest.approx(other[axis], abs=1e-4) for axis in ("azimuth", "elevation", "theta"))


def test_the_openai_client_is_answered_as_the_library_answers(client: openai.OpenAI, model: LlavaPose) -> None:
    found = client.chat.completions.create(model=MODEL, messages=asked())  # type: ignore[arg-type]
    expected = model.chat(SAMPLES / "car.jpg", [{"role": "user", "content": TURN}])
    [choice] = found.choices
    assert (choice.message.content, choice.finish_reason) == (expected.text, "stop")
    assert expected.text.count("<pose>") == 1
    [pose] = choice.message.poses  # type: ignore[attr-defined]
    assert same_numbers(pose, expected.readings[0].to_dict())
    assert (pose["category"], pose["class_probability"], pose["box"]) == ("car", None, None)
    usage = found.usage
    assert usage is not None and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert (usage.prompt_tokens, usage.completion_tokens) == (expected.prompt_tokens, len(expected.tokens))


def test_a_stream_is_the_same_answer_in_pieces_each_pose_beside_its_mark(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=asked())  # type: ignore[arg-type]
    stream = client.chat.completions.create(
        model=MODEL,
        messages=asked(),  # type: ignore[arg-type]
        stream=True,
        stream_options={"include_usage": True},
    )
    text, poses, chunks = "", [], list(stream)
    for chunk in chunks[:-1]:
        delta = chunk.choices[0].delta
        text += delta.content or ""
        poses += (delta.model_extra or {}).get("poses", [])
        assert len(poses) == text.count("<pose>")
    assert text == whole.choices[0].message.content
    assert len(poses) == 1 and same_numbers(poses[0], whole.choices[0].message.poses[0])  # type: ignore[attr-defined]
    assert [chunk.choices[0].finish_reason for chunk in chunks[-3:-1]] == [None, "stop"]
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1 and len(chunks) > 5


def test_a_conversation_goes_on_with_its_history_and_an_answer_may_come_back_as_it_was(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model=MODEL, messages=asked())  # type: ignore[arg-type]
    back = first.choices[0].message.model_dump()
    messages = [*asked(), back, {"role": "user", "content": "Which way is the car facing?"}]
    second = client.chat.completions.create(model=MODEL, messages=messages)
    assert first.usage is not None and second.usage is not None
    assert second.usage.prompt_tokens > first.usage.prompt_tokens + first.usage.completion_tokens
    assert second.choices[0].message.content != first.choices[0].message.content


def test_several_pictures_and_the_systems_words_reach_the_model_in_order(server: Served, model: LlavaPose) -> None:
    chair = data_url(SAMPLES / "chair.jpg")
    question = "Which way is the chair facing?"
    body = [{"role": "system", "content": "Be brief."}, *asked(question, picture_part(), picture_part(chair))]
    found = server.post(CHAT, {"messages": body}).json()["choices"][0]["message"]
    parts = [{"type": "image", "image": SAMPLES / f"{name}.jpg"} for name in ("car", "chair")]
    turns = [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]
    expected = model.chat(None, [{"role": "system", "content": "Be brief."}, *turns])
    assert found["content"] == expected.text
    assert len(found["poses"]) == len(expected.readings)


def test_a_box_shows_the_model_its_part_of_the_picture(server: Served) -> None:
    box = (20, 20, 150, 180)
    cut = crop_box(Image.open(SAMPLES / "car.jpg").convert("RGB"), box)
    boxed = server.post(CHAT, {"messages": asked(TURN, picture_part(box=list(box)))}).json()
    alone = server.post(CHAT, {"messages": asked(TURN, picture_part(data_url(cut)))}).json()
    [pose], [other] = (answer["choices"][0]["message"]["poses"] for answer in (boxed, alone))
    assert pose["azimuth"] == pytest.approx(other["azimuth"], abs=0.02)
    assert (pose["box"], other["box"]) == ([20, 20, 150, 180], None)


def test_the_answer_ends_at_the_greatest_number_of_tokens_or_at_a_stop(server: Served) -> None:
    whole = server.post(CHAT, {"messages": asked()}).json()["choices"][0]
    for field in ("max_tokens", "max_completion_tokens"):
        cut = server.post(CHAT, {"messages": asked(), field: 3}).json()
        assert (cut["choices"][0]["finish_reason"], cut["usage"]["completion_tokens"]) == ("length", 3)
    stopped = server.post(CHAT, {"messages": asked(), "stop": [" degrees", "never"]}).json()["choices"][0]
    assert stopped["finish_reason"] == "stop"
    assert stopped["message"]["content"] == whole["message"]["content"].partition(" degrees")[0]


def test_drawn_answers_repeat_with_their_seed(server: Served) -> None:
    def drawn(seed: int) -> str:
        body = {"messages": asked("Describe the picture."), "temperature": 2, "top_p": 1, "seed": seed}
        return server.post(CHAT, {**body, "max_tokens": 20}).json()["choices"][0]["message"]["content"]

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(6)}) > 1


def test_fields_that_change_nothing_may_be_sent_and_null_is_left_out(server: Served) -> None:
    harmless = {"n": 1, "frequency_penalty": 0, "logprobs": False, "response_format": {"type": "text"}, "user": "me"}
    nothing = {"stop": None, "max_tokens": None, "tools": None, "stream_options": None, "model": MODEL}
    plain = server.post(CHAT, {"messages": asked()}).json()["choices"]
    assert server.post(CHAT, {"messages": asked(), **harmless, **nothing}).json()["choices"] == plain


@pytest.mark.parametrize(
    ("change", "param", "told"),
    [
        ({"n": 2}, "n", "2"),
        ({"tools": []}, "tools", "not permitted"),
        ({"logit_bias": {}}, "logit_bias", "not permitted"),
        ({"presence_penalty": 1}, "presence_penalty", "1"),
        ({"temperature": "1"}, "temperature", "number"),
        ({"temperature": 3}, "temperature", "3"),
        ({"top_p": 0}, "top_p", "0"),
        ({"max_tokens": 0}, "max_tokens", "0"),
        ({"max_tokens": 1025}, "max_tokens", "1025, more than the 1024 allowed"),
        ({"max_completion_tokens": 4000}, "max_completion_tokens", "4000"),
        ({"stop": ""}, "stop", "at least 1"),
        ({"stream": "yes"}, "stream", "boolean"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": "hello"}, "messages", "list"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "required"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]", "tool"),
        ({"messages": [*asked(), {"role": "assistant", "content": "x"}]}, "messages", "the last must be the user's"),
        ({"messages": [*asked(), {"role": "system", "content": "x"}, *asked()]}, "messages[1]", "must be the first"),
        ({"messages": asked(TURN, {"type": "video"})}, "messages[0].content[0]", "video"),
        ({"messages": asked(TURN, {"type": "image_url"})}, "messages[0].content[0].image_url", "required"),
        ({"messages": asked(TURN, picture_part(url=5))}, "messages[0].content[0].image_url.url", "string"),
        ({"messages": asked(TURN, picture_part(box=[1, 2, 3]))}, "messages[0].content[0].box", "4 items"),
        ({"messages": asked(TURN, picture_part(box=[9, 9, 5, 20]))}, "messages[0].content[0]", "9,9,5,20 has no area"),
        ({"messages": asked(TURN, picture_part("photo.jpg"))}, "messages[0].content[0]", "expected data:image"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_with_its_field_named(
    server: Served, change: dict[str, Any], param: str, told: str
) -> None:
    status, named, message = refusal(server.post(CHAT, {"messages": asked(), **change}))
    assert status == 400
    assert named == param
    assert told in message


def test_mistakes_are_the_openai_clients_own_exceptions(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="'gpt-5' is not served here, 'llava-pose' is") as missing:
        client.chat.completions.create(model="gpt-5", messages=asked())  # type: ignore[arg-type]
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model=MODEL, messages=asked(), n=3)  # type: ignore[arg-type]
    assert (wrong.value.param, wrong.value.type) == ("n", "invalid_request_error")


def test_the_models_are_the_one(client: openai.OpenAI) -> None:
    assert [each.id for each in client.models.list()] == [MODEL]


def test_langchain_asks_and_streams(server: Served, client: openai.OpenAI) -> None:
    expected = client.chat.completions.create(model=MODEL, messages=asked()).choices[0].message.content  # type: ignore[arg-type]
    chat = ChatOpenAI(base_url=f"{server.url}/v1", api_key=SecretStr("not needed"), model=MODEL, max_retries=0)
    question = HumanMessage(content=asked()[0]["content"])
    assert chat.invoke([question]).content == expected
    assert "".join(str(chunk.content) for chunk in chat.stream([question])) == expected


def test_curl_asks_and_streams(server: Served, tmp_path: Any) -> None:
    def told(stream: bool) -> str:
        file = tmp_path / "body.json"
        file.write_text(json.dumps({"messages": asked(), "stream": stream}))
        command = ["curl", "-sSN", f"{server.url}{CHAT}", "-H", "Content-Type: application/json", "-d", f"@{file}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    text = json.loads(told(False))["choices"][0]["message"]["content"]
    assert text.startswith("The car <pose>")
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in events(told(True))) == text


def test_a_question_without_a_picture_is_answered_too(server: Served) -> None:
    found = server.post(CHAT, {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5})
    assert found.status_code == 200


def test_marks_in_somebodys_words_pose_as_nothing(server: Served) -> None:
    body = {"messages": asked("What is this? <image> <pose>"), "max_tokens": 5}
    assert server.post(CHAT, body).status_code == 200
