"""Work shared out over processes, in parts that do not depend on how many there are, each kept once it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from tqdm import tqdm

from eval.journal import Journal, Lines
from eval.questions import ask
from llava_pose import conversation
from llava_pose.api import LlavaPose
from llava_pose.decoding import nodes_at_once
from llava_pose.engine import Engine
from llava_pose.errors import UserError
from llava_pose.evaluation import Asking, Place, Subject, predict_subjects, read_subjects
from llava_pose.loading import batches_by_tokens, read_ahead
from llava_pose.scene import PosedImage
from llava_pose.trie import NameTrie

Value = TypeVar("Value")
Batch = tuple[int, list[Subject], torch.Tensor | None]
"""A batch's number, its objects, and the pixels of those that have a picture."""
Finished = Iterator[tuple[int, Lines]]
"""The numbers of parts and their lines, as they are done."""


def share_out(
    accelerator: Accelerator,
    journals: Path,
    fingerprint: Mapping[str, Any],
    todo: Sequence[int],
    work: Callable[[Sequence[int]], Finished],
    unit: str,
) -> None:
    """Do the parts ``todo``, this process its share of them, and wait until all processes have done theirs."""
    mine = todo[accelerator.process_index :: accelerator.num_processes]
    if mine:
        with Journal(journals, accelerator.process_index, fingerprint) as journal:
            hidden = None if accelerator.is_local_main_process else True
            with tqdm(total=len(mine), desc="evaluate", unit=unit, disable=hidden) as shown:
                for number, lines in work(mine):
                    journal.add(number, lines)
                    shown.update()
    accelerator.wait_for_everyone()


def on_main(accelerator: Accelerator, work: Callable[[], Value]) -> Value:
    """What ``work`` returns on the first process, on all of them; a mistake it finds is raised by all of them, too."""
    found: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            found[0] = work()
        except UserError as error:
            found[1] = str(error)
    broadcast_object_list(found)
    if found[1] is not None:
        raise UserError(found[1])
    value: Value = found[0]
    return value


def make_batches(
    places: Sequence[Place], engine: Engine, trie: NameTrie, size: int, max_tokens: int | None
) -> list[list[Place]]:
    """All objects in batches of ``size``, or of as many as ``max_tokens`` allow.

    They depend on data and options alone, so that every number comes out the same for any number of processes.
    """
    if max_tokens is None:
        return [list(places[start : start + size]) for start in range(0, len(places), size)]
    lengths = [engine.prompt_length(conversation.naming_messages())] * len(places)
    made = batches_by_tokens(lengths, max_tokens, nodes_at_once(trie))
    return [[places[index] for index in batch] for batch in made]


class Predicting:
    """Batches of objects of ``data``, a split whose images are still bytes, to prediction lines.

    ``crop``: what lines call the way their pictures were cut; for ``by_box`` see ``evaluation.read_subjects``.
    """

    def __init__(
        self,
        engine: Engine,
        trie: NameTrie,
        categories: Sequence[str],
        asking: Asking,
        *,
        data: Any,
        batches: Sequence[list[Place]],
        crop: str | None,
        by_box: bool,
        workers: int,
        stop_on_error: bool,
    ) -> None:
        self.engine, self.trie, self.categories, self.asking = engine, trie, categories, asking
        self.data, self.batches, self.crop, self.by_box = data, batches, crop, by_box
        self.workers, self.stop_on_error = workers, stop_on_error

    def __call__(self, numbers: Sequence[int]) -> Finished:
        """The lines of these batches, whose images are read and prepared ahead of need."""
        for number, subjects, pixels in read_ahead(self._read, numbers, self.workers):
            wrong = [subject.error for subject in subjects if subject.error]
            if wrong and self.stop_on_error:
                raise UserError(wrong[0])
            yield number, predict_subjects(self.engine, self.trie, self.categories, subjects, pixels, self.asking)

    def _read(self, number: int) -> Batch:
        subjects = read_subjects(self.data, self.batches[number], self.crop, self.by_box)
        pictures = [subject.image for subject in subjects if subject.image is not None]
        return number, subjects, self.engine.pixels(pictures) if pictures else None


def answering(
    engine: Engine, data: Any, questions: Sequence[dict[str, Any]], stop_on_error: bool
) -> Callable[[Sequence[int]], Finished]:
    """Questions to answers, one each; a question about an image that cannot be read has an empty one with its error."""
    model = LlavaPose(engine)

    def answer(number: int) -> dict[str, Any]:
        line = questions[number]
        try:
            return ask(model, PosedImage.from_row(data[line["row"]]), line)
        except UserError as error:
            if stop_on_error:
                raise
            return {"question_id": line["question_id"], "answer": "", "error": str(error)}

    return lambda numbers: ((number, [answer(number)]) for number in numbers)
