"""``/v1/chat/completions``: OpenAI's conversations, with poses beside their ``<pose>`` marks."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from typing import Any, BinaryIO, NamedTuple

from fastapi import Request as HttpRequest
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.responses import Response

from llava_pose.api import LlavaPose
from llava_pose.generation import MAX_NEW_TOKENS, Answer, Request
from llava_pose.images import Box

from .errors import ApiError, error_object, mistakes_in
from .metrics import Metrics
from .pictures import checked_picture, picture_bytes
from .poses import answer_poses
from .schemas import ChatRequest, ImagePart, Message, SystemMessage, TextPart, UserMessage
from .settings import ServerSettings
from .worker import ModelError, Worker

LONGEST_TOKEN = 100
"""Characters of a token at most, on the average over a long text: what is longer need not be encoded to be refused."""

TOO_LONG = "context_length_exceeded"


class _Prepared(NamedTuple):
    """A conversation ready for the model, and the box it is about, if it is about one."""

    request: Request
    box: Box | None


class Chats:
    """Answers chat requests with one model."""

    def __init__(self, model: LlavaPose, worker: Worker, settings: ServerSettings, metrics: Metrics, threads: Executor):
        self.model = model
        self.worker = worker
        self.settings = settings
        self.metrics = metrics
        self.threads = threads

    async def complete(self, body: ChatRequest, http: HttpRequest) -> Response:
        """The answer, at once or as it grows. Raises ApiError."""
        prepared = await self._prepare(body)
        deadline: float = http.state.deadline
        if body.stream:
            # The first piece is waited for, so that what fails before it still has a status of its own.
            pieces = self.worker.answers(prepared.request, deadline)
            first = await anext(pieces)
            return StreamingResponse(
                self._events(body, prepared, first, pieces, http.state.request_id),
                media_type="text/event-stream",
                headers={"X-Accel-Buffering": "no"},  # proxies pass each event on at once
            )
        async with aclosing(self.worker.answers(prepared.request, deadline)) as pieces:
            [answer] = [answer async for answer in pieces]
        message = {
            "role": "assistant",
            "content": answer.text,
            "refusal": None,
            "poses": answer_poses(answer, 0, prepared.box),
        }
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(answer)}
        return JSONResponse({**self._head("chat.completion"), "choices": [choice], "usage": self._usage(answer)})

    async def _prepare(self, body: ChatRequest) -> _Prepared:
        """What the model is to answer. Raises ApiError for what it cannot."""
        if body.model is not None and body.model != self.settings.model_name:
            told = f"model: {body.model[:80]!r} is not served here, {self.settings.model_name!r} is"
            raise ApiError(404, told, "model", "model_not_found")
        limit = body.max_completion_tokens or body.max_tokens
        if limit is not None and limit > self.settings.max_new_tokens:
            field = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
            told = f"{field}: {limit}, more than the {self.settings.max_new_tokens} allowed"
            raise ApiError(400, told, field, "invalid_value")
        parts = [
            (f"messages[{number}].content[{index}]", part)
            for number, message in enumerate(body.messages)
            if isinstance(message, UserMessage) and not isinstance(message.content, str)
            for index, part in enumerate(message.content)
            if isinstance(part, ImagePart)
        ]
        if len(parts) > self.settings.max_images:
            told = f"messages: {len(parts)} pictures, more than the {self.settings.max_images} allowed"
            raise ApiError(400, told, "messages", "too_many_images")
        pictures = [await picture_bytes(part.image_url.url, self.settings, param) for param, part in parts]
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, self._ready, body, parts, pictures, limit)

    def _ready(
        self,
        body: ChatRequest,
        parts: Sequence[tuple[str, ImagePart]],
        pictures: Sequence[bytes],
        limit: int | None,
    ) -> _Prepared:
        longest = min(self.model.engine.context - 1, self.settings.max_prompt_tokens or self.model.engine.context)
        too_long = ApiError(400, f"messages: more than the {longest} tokens allowed", "messages", TOO_LONG)
        if sum(map(_characters, body.messages)) > LONGEST_TOKEN * longest:
            raise too_long
        streams = [
            checked_picture(data, self.settings.max_pixels, param)
            for (param, _), data in zip(parts, pictures, strict=True)
        ]
        stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
        with mistakes_in("messages"):
            request = self.model.request(
                None,
                _with_pictures(body.messages, iter(streams)),
                max_new_tokens=limit or min(MAX_NEW_TOKENS, self.settings.max_new_tokens),
                temperature=body.temperature,
                top_p=body.top_p,
                stop=stops,
                seed=body.seed,
                growing=body.stream,
            )
        tokens = () if request.images is None else request.images.tokens
        if len(self.model.engine.processor.encode(request.messages, tokens)[0]) > longest:
            raise too_long
        boxes = [_box(part) for _, part in parts]
        return _Prepared(request, boxes[0] if len(boxes) == 1 else None)

    async def _events(
        self,
        body: ChatRequest,
        prepared: _Prepared,
        answer: Answer,
        pieces: AsyncGenerator[Answer, None],
        request_id: str,
    ) -> AsyncIterator[str]:
        """The server-sent events of an answer as it grows."""
        head = self._head("chat.completion.chunk")
        if body.stream_options is not None and body.stream_options.include_usage:
            head["usage"] = None

        def event(delta: dict[str, Any], finish_reason: str | None = None) -> str:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
            return _event({**head, "choices": [choice]})

        yield event({"role": "assistant", "content": ""})
        sent, poses = "", 0
        try:
            async with aclosing(pieces):
                while True:
                    if len(answer.text) > len(sent):
                        delta: dict[str, Any] = {"content": answer.text[len(sent) :]}
                        if len(answer.readings) > poses:
                            delta["poses"] = answer_poses(answer, poses, prepared.box)
                        yield event(delta)
                        sent, poses = answer.text, len(answer.readings)
                    if answer.finished:
                        break
                    answer = await anext(pieces)
        except ApiError as error:
            yield _event(error.body)
            return
        except ModelError:
            yield _event(error_object(500, f"something went wrong here; the request was {request_id}"))
            return
        yield event({}, _finish_reason(answer))
        usage = self._usage(answer)
        if "usage" in head:
            yield _event({**head, "choices": [], "usage": usage})
        yield "data: [DONE]\n\n"

    def _head(self, kind: str) -> dict[str, Any]:
        """How every answer and every piece of one begins."""
        name = self.settings.model_name
        return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": name}

    def _usage(self, answer: Answer) -> dict[str, int]:
        self.metrics.tokens.labels("prompt").inc(answer.prompt_tokens)
        self.metrics.tokens.labels("completion").inc(len(answer.tokens))
        self.metrics.poses.labels("/v1/chat/completions").inc(len(answer.readings))
        return {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": len(answer.tokens),
            "total_tokens": answer.prompt_tokens + len(answer.tokens),
        }


def _finish_reason(answer: Answer) -> str:
    return "stop" if answer.complete else "length"


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False, allow_nan=False)}\n\n"


def _box(part: ImagePart) -> Box | None:
    return None if part.box is None else (part.box[0], part.box[1], part.box[2], part.box[3])


def _characters(message: Message) -> int:
    if isinstance(message.content, str):
        return len(message.content)
    return sum(len(part.text) for part in message.content if isinstance(part, TextPart))


def _with_pictures(messages: Sequence[Message], pictures: Iterator[BinaryIO]) -> list[dict[str, Any]]:
    """The messages in the form that ``LlavaPose.chat`` takes, their pictures in reading order."""

    def part(given: TextPart | ImagePart) -> dict[str, Any]:
        if isinstance(given, TextPart):
            return {"type": "text", "text": given.text}
        return {"type": "image", "image": next(pictures), "box": given.box}

    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "system" if isinstance(message, SystemMessage) else message.role
        content = message.content if isinstance(message.content, str) else [part(each) for each in message.content]
        turns.append({"role": role, "content": content})
    return turns
