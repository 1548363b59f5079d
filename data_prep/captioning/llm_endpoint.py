"""An OpenAI-compatible endpoint, asked politely: so many requests a minute, pauses as it wishes, mistakes told plainly.

What cannot get better by itself (a wrong key, an unknown model, an endpoint that is not there) ends the run with a
``UserError``; what concerns one question alone leaves that one unanswered.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import math
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import openai

from data_prep.captioning.llm_answers import CUT_OFF
from data_prep.captioning.llm_journal import Answer
from llava_pose.errors import UserError

SENDS = 6
"""How often a request is sent that gets no answer, after about 1, 2, 4, … seconds."""
FIRST_PAUSE = 1.0
PAUSES = 60
"""How often a request is sent anew after a pause that the endpoint asked for: under a limit it may be others' turn."""
LONGEST_PAUSE = 600.0
"""Seconds; an endpoint that asks for a longer one (a spent daily allowance) ends the run."""
SILENT_IN_A_ROW = 20
"""Questions in a row without an answer that end the run."""


class Unanswered(Exception):
    """This question got no answer; the message says why."""


@dataclass(frozen=True)
class EndpointSettings:
    """Where to ask, and how much at once. ``base_url`` None: the client's own default, or ``OPENAI_BASE_URL``."""

    model: str
    base_url: str | None = None
    timeout: float = 120.0
    concurrency: int = 8
    requests_per_minute: float | None = None


class Endpoint:
    """Asks one model. ``sent_again``: how many requests were, having had no answer."""

    def __init__(self, settings: EndpointSettings) -> None:
        """Raises UserError where no key is set and the default endpoint would want one."""
        self.settings = settings
        self._key = os.environ.get("OPENAI_API_KEY", "").strip()
        if not self._key and not (settings.base_url or os.environ.get("OPENAI_BASE_URL")):
            raise UserError("OPENAI_API_KEY: not set; the endpoint wants a key (or name another one by --base-url)")
        self._client = openai.AsyncOpenAI(
            api_key=self._key or "none", base_url=settings.base_url, timeout=settings.timeout, max_retries=0
        )
        self.sent_again = 0
        self._answered = False
        self._silent = 0
        self._stopped: UserError | None = None
        self._stop_event = asyncio.Event()
        self._gate = asyncio.Lock()
        self._next_at = self._pause_until = 0.0

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def ask(self, messages: list[dict[str, Any]]) -> Answer:
        """The model's answer, however good.

        Raises:
            Unanswered: there was none after all attempts, or the endpoint refuses this question.
            UserError: it is no use to ask anything more.
        """
        failures = pauses = 0
        while True:
            await self._turn()
            if self._stopped:
                raise self._stopped
            pause: float | None = None
            try:
                answer = await self._send(messages)
            except openai.APIStatusError as error:
                why, pause = self._status(error), _retry_after(error.response.headers)
                self._pause_all(pause)
            except openai.APITimeoutError:
                why = f"no answer in {self.settings.timeout:g} seconds"
            except openai.APIConnectionError as error:
                why = self._safe(f"{error.message} {error.__cause__ or ''}".strip())
                if failures == SENDS - 1:
                    raise self._stop(f"cannot be reached: {why}") from error
            except ValueError as error:
                why = f"malformed answer: {self._safe(str(error))}"
            else:
                self._answered, self._silent = True, 0
                return answer
            failures, pauses = failures + (pause is None), pauses + (pause is not None)
            if failures == SENDS or pauses == PAUSES:
                break
            self.sent_again += 1
            if pause is None:
                # Not all at the same moment again.
                await self._sleep(FIRST_PAUSE * 2 ** (failures - 1) * random.uniform(0.5, 1.0))
        self._silent += 1
        if self._silent >= SILENT_IN_A_ROW:
            raise self._stop(f"no answer to {self._silent} questions in a row, last: {why}")
        raise Unanswered(why)

    async def _send(self, messages: list[dict[str, Any]]) -> Answer:
        chat: Any = self._client.chat.completions.with_raw_response
        reply = await chat.create(model=self.settings.model, messages=messages)
        return read_answer(reply.http_response.text)

    async def _turn(self) -> None:
        """Wait until a request may be sent: for the pause that the endpoint asked for, and for the rate."""
        async with self._gate:
            while (wait := max(self._next_at, self._pause_until) - time.monotonic()) > 0 and not self._stopped:
                await self._sleep(wait)
            rate = self.settings.requests_per_minute
            self._next_at = time.monotonic() + (60.0 / rate if rate else 0.0)

    async def _sleep(self, seconds: float) -> None:
        """Sleep, unless the run ends meanwhile."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stop_event.wait(), seconds)

    def _pause_all(self, seconds: float | None) -> None:
        if seconds is None:
            return
        if seconds > LONGEST_PAUSE:
            raise self._stop(f"asks to wait {seconds:.0f} seconds; run the same command again then")
        self._pause_until = max(self._pause_until, time.monotonic() + seconds)

    def _status(self, error: openai.APIStatusError) -> str:
        """Why a request failed that may be sent again; raises where it may not."""
        status, said = error.status_code, self._safe(_message(error))
        if status == 401 and not self._key:
            raise self._stop("wants a key (status 401): set OPENAI_API_KEY") from None
        if status == 401:
            # The endpoint's own words may hold part of the key.
            raise self._stop("refuses the key in OPENAI_API_KEY (status 401)") from None
        if error.code == "insufficient_quota":
            raise self._stop(f"the account's quota is spent: {said}") from None
        if status in (408, 409, 429) or status >= 500:
            return f"status {status}: {said}"
        if status in (403, 404) or not self._answered:
            raise self._stop(f"refuses the request (status {status}): {said}") from None
        raise Unanswered(f"refused (status {status}): {said}") from None

    def _stop(self, why: str) -> UserError:
        """The mistake that ends the run; requests under way end with it instead of being sent again."""
        where = str(self._client.base_url).rstrip("/")
        self._stopped = self._stopped or UserError(f"{where}: model {self.settings.model!r}: {why}")
        self._stop_event.set()
        return self._stopped

    def _safe(self, text: str) -> str:
        """The text on one line, not too long, and without the key."""
        text = text.replace(self._key, "(key)") if self._key else text
        return f"{' '.join(text.split()):.200}"


def read_answer(body: str) -> Answer:
    """The answer in the body of a reply. A refusal is an answer without text; one that was cut off ends with "…".

    Raises:
        ValueError: the body is not that of a chat completion.
    """
    data = json.loads(body)
    try:
        choice, usage = data["choices"][0], data.get("usage") or {}
        text = choice["message"].get("content")
        if text is not None and not isinstance(text, str):
            raise ValueError(f"content: expected a text, got {text!r:.60}")
        if choice.get("finish_reason") == "length":
            text = f"{text or ''}{CUT_OFF}"
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"not a chat completion: {body:.60}") from error
    tokens_in, tokens_out = (count if isinstance(count, int) and count >= 0 else None for count in counts)
    return Answer(text or "", tokens_in, tokens_out)


def _message(error: openai.APIStatusError) -> str:
    told = error.body.get("message") if isinstance(error.body, Mapping) else None
    return str(told or error.response.text or "no reason given")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait as the Retry-After header says, in seconds or as a date; None without one."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return None if math.isnan(seconds) else max(seconds, 0.0)
