"""Captions by a language model that sees the picture: every row asked once, checked, or told by the template instead.

Answers are kept in a journal beside the data folder as they come, so a run that ends early is paid for once: the same
command goes on where it was. The shards are written at the end, from the journal.
"""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from data_prep.captioning.caption_templates import template_caption
from data_prep.captioning.fill import columns, data_shards, fill, objects_of, row_seed
from data_prep.captioning.llm_answers import TRIES, Question, complaint, messages, question, read_caption
from data_prep.captioning.llm_endpoint import Endpoint, EndpointSettings, Unanswered
from data_prep.captioning.llm_journal import Answer, Journal
from llava_pose.errors import UserError


@dataclass(frozen=True)
class Prices:
    """What a million tokens cost, in any currency."""

    tokens_in: float = 0.0
    tokens_out: float = 0.0

    def cost(self, answers: Iterator[Answer]) -> tuple[int, int, float]:
        """The tokens of these answers, in and out, and what they cost."""
        counts = [(answer.tokens_in or 0, answer.tokens_out or 0) for answer in answers]
        tokens_in, tokens_out = (sum(pair[side] for pair in counts) for side in (0, 1))
        return tokens_in, tokens_out, (tokens_in * self.tokens_in + tokens_out * self.tokens_out) / 1e6


@dataclass
class _Run:
    """One run over a data folder.

    ``unanswered``: why, by the key of the question. ``paid_now``: the answers of this run; ``paid``: all those to the
    questions about this folder.
    """

    folder: Path
    settings: EndpointSettings
    prices: Prices
    journal: Journal
    unanswered: dict[str, str] = field(default_factory=dict)
    paid_now: list[Answer] = field(default_factory=list)
    paid: dict[str, list[Answer]] = field(default_factory=dict)


def journal_path(folder: Path) -> Path:
    """Where the answers about a data folder are kept: beside it, so that making the folder anew does not lose them."""
    folder = folder.resolve()
    return folder.with_name(f"{folder.name}.captions.jsonl")


def write_captions(folder: Path, settings: EndpointSettings, prices: Prices) -> None:
    """Ask for every caption that the journal does not hold, then write all of them, and report.

    Raises:
        UserError: the folder or the journal is wrong, or the endpoint cannot be used; the shards are as they were, and
            the answers so far are in the journal.
    """
    rows = sum(count for _, count in data_shards(folder))
    journal = Journal(journal_path(folder))
    run = _Run(folder, settings, prices, journal)
    try:
        with tqdm(total=rows, desc=settings.model, unit="caption", disable=None) as bar:
            asyncio.run(_ask_all(run, bar))
        _report(run, *_write_shards(run))
    finally:
        journal.close()


# Asking ---------------------------------------------------------------------------------------------------------------


def _open_questions(run: _Run, bar: tqdm) -> Iterator[tuple[Question, bytes]]:
    """Every question that needs an answer, with its image: one row group is in memory at a time."""
    asked: set[str] = set()
    for shard, _ in data_shards(run.folder):
        with pq.ParquetFile(shard) as file:
            names = [name for name in file.schema_arrow.names if name != "image"]
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, columns=names).to_pylist()
                questions = [_question(row, run.settings.model) for row in rows]
                first_of = {one.key: k for k, one in reversed(list(enumerate(questions))) if one.key not in asked}
                wanted = sorted(k for k in first_of.values() if not _settled(questions[k], run.journal))
                asked |= first_of.keys()
                bar.update(len(rows) - len(wanted))
                images = file.read_row_group(group, columns=["image"])["image"] if wanted else []
                yield from ((questions[k], _image_bytes(images[k].as_py(), questions[k].image_id)) for k in wanted)


def _question(row: dict[str, Any], model: str) -> Question:
    return question(row["image_id"], row["width"], row["height"], objects_of(row), model)


def _settled(one: Question, journal: Journal) -> bool:
    """Whether nothing more is to be asked: there is nothing to say, an answer will do, or enough of them did not."""
    answers = journal.answers.get(one.key, [])
    return not one.objects or len(answers) >= TRIES or any(complaint(one, answer.text) is None for answer in answers)


def _image_bytes(image: Any, image_id: str) -> bytes:
    if not image or not image.get("bytes"):
        raise UserError(f"{image_id}: image: the row holds none")
    return image["bytes"]


def _data_url(image: bytes, image_id: str) -> str:
    try:
        kind = Image.open(io.BytesIO(image)).get_format_mimetype()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{image_id}: image: cannot be read: {error}") from error
    return f"data:{kind};base64,{base64.b64encode(image).decode()}"


async def _ask_all(run: _Run, bar: tqdm) -> None:
    """Ask what is open, ``concurrency`` questions at once. Where one ends the run, those under way end first: their
    answers are paid for."""
    endpoint = Endpoint(run.settings)
    running: set[asyncio.Task[None]] = set()
    try:
        for one, image in _open_questions(run, bar):
            if len(running) >= run.settings.concurrency:
                running = await _first_done(running)
            running.add(asyncio.create_task(_ask_one(run, endpoint, one, image, bar)))
        while running:
            running = await _first_done(running)
    except UserError:
        await asyncio.gather(*running, return_exceptions=True)
        raise
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await endpoint.close()


async def _first_done(running: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    done, running_still = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    return running_still


async def _ask_one(run: _Run, endpoint: Endpoint, one: Question, image: bytes, bar: tqdm) -> None:
    url = _data_url(image, one.image_id)
    while not _settled(one, run.journal):
        earlier = [answer.text for answer in run.journal.answers.get(one.key, [])]
        try:
            answer = await endpoint.ask(messages(one, url, earlier))
        except Unanswered as error:
            run.unanswered[one.key] = str(error)
            break
        run.journal.add(one.key, one.image_id, answer)
        run.paid_now.append(answer)
    tokens_in, tokens_out, cost = run.prices.cost(iter(run.paid_now))
    bar.set_postfix(tokens=tokens_in + tokens_out, cost=f"{cost:.4f}", sent_again=endpoint.sent_again, refresh=False)
    bar.update()


# Writing --------------------------------------------------------------------------------------------------------------


def _write_shards(run: _Run) -> tuple[int, list[str]]:
    """Write every caption; returns how many, and a line for each that the template had to write."""
    instead: list[str] = []

    def caption_of(row: dict[str, Any]) -> dict[str, Any]:
        one = _question(row, run.settings.model)
        answers = run.paid[one.key] = run.journal.answers.get(one.key, [])
        for answer in answers:
            if complaint(one, answer.text) is None:
                return columns(*read_caption(one, answer.text))
        if one.objects:
            refused = f"{len(answers)} answers refused, the last: {complaint(one, answers[-1].text)}" if answers else ""
            instead.append(f"{row['image_id']}: {run.unanswered.get(one.key) or refused}")
        return columns(*template_caption(objects_of(row), row_seed(row)))

    return fill(run.folder, caption_of), instead


def _report(run: _Run, rows: int, instead: list[str]) -> None:
    print(
        f"{run.folder}: {rows} captions: {rows - len(instead)} by {run.settings.model}, {len(instead)} by the template"
    )
    for line in instead:
        print(f"by the template: {line}")
    paid = [answer for answers in run.paid.values() for answer in answers]
    for when, answers in (("in this run", run.paid_now), ("in all", paid)):
        tokens_in, tokens_out, cost = run.prices.cost(iter(answers))
        told = f"{when}: {len(answers)} answers, {tokens_in} tokens in, {tokens_out} tokens out"
        print(f"{told}, cost {cost:.4f}" if run.prices != Prices() else told)
    unknown = sum(answer.tokens_in is None or answer.tokens_out is None for answer in run.paid_now)
    if unknown:
        print(f"the endpoint gave no token counts for {unknown} answers: they are not in these figures")
    print(f"answers are kept in {run.journal.path}")
