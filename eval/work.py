"""Work shared out over processes, in parts that do not depend on how many there are, each kept once it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from tqdm import tqdm

from eval.journal import Journal, Lines
from eval.questions import ask
from eval.task import Task
from llava_pose import conversation
from llava_pose.api import LlavaPose
from llava_pose.decoding import nodes_at_once
from llava_pose.engine import Engine
from llava_pose.errors import UserError
from llava_pose.evaluation import Asking, Place, Subject, predict_subjects, read_record, read_subjects
from llava_pose.image_inputs import ImageInputs
from llava_pose.loading import batches_by_tokens, read_ahead
from llava_pose.trie import NameTrie

Value = TypeVar("Value")
Batch = tuple[int, list[Subject], ImageInputs | None]
"""A batch's number, its objects, and what the model is given of those that have a picture."""
Finished = Iterator[tuple[int, Lines]]
"""The numbers of parts and their lines, as they are done."""


def share_out(
    accelerator: Accelerator,
    journals: Path,
    fingerprint: Mapping[str, Any],
    todo: Sequence[int],
    work: Predicting | Answering,
) -> None:
    """Do the parts ``todo``, this process its share of them, and wait until all processes have done theirs."""
    mine = todo[accelerator.process_index :: accelerator.num_processes]
    if mine:
        with Journal(journals, accelerator.process_index, fingerprint) as journal:
            hidden = None if accelerator.is_local_main_process else True
            with tqdm(total=len(mine), desc="evaluate", unit=work.unit, disable=hidden) as shown:
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
    """Batches of a task's objects to prediction lines."""

    unit = "batch"

    def __init__(
        self,
        engine: Engine,
        trie: NameTrie,
        asking: Asking,
        task: Task,
        batches: Sequence[list[Place]],
        workers: int,
        stop_on_error: bool,
    ) -> None:
        self.engine, self.trie, self.asking, self.task = engine, trie, asking, task
        self.batches, self.workers, self.stop_on_error = batches, workers, stop_on_error

    def __call__(self, numbers: Sequence[int]) -> Finished:
        """The lines of these batches, whose images are read and prepared ahead of need."""
        names = self.task.categories
        for number, subjects, pixels in read_ahead(self._read, numbers, self.workers):
            wrong = [subject.error for subject in subjects if subject.error]
            if wrong and self.stop_on_error:
                raise UserError(wrong[0])
            yield number, predict_subjects(self.engine, self.trie, names, subjects, pixels, self.asking)

    def _read(self, number: int) -> Batch:
        subjects = read_subjects(self.task.data, self.batches[number], self.task.crop, self.task.by_box)
        pictures = [subject.image for subject in subjects if subject.image is not None]
        return number, subjects, self.engine.pixels(pictures, self.asking.flip) if pictures else None


class Answering:
    """A task's questions to answers, one each; a question about an image that cannot be read has an empty one with its
    error."""

    unit = "question"

    def __init__(self, engine: Engine, task: Task, stop_on_error: bool, flip: bool) -> None:
        self.model, self.task, self.stop_on_error, self.flip = LlavaPose(engine), task, stop_on_error, flip

    def __call__(self, numbers: Sequence[int]) -> Finished:
        """The answers to these questions."""
        for number in numbers:
            yield number, [self._answer(self.task.questions[number])]

    def _answer(self, line: dict[str, Any]) -> dict[str, Any]:
        record, problem = read_record(self.task.data[line["row"]])
        if record is not None:
            # One at a time: the same answers to the last digit, however many processes share the questions.
            return next(ask(self.model, [(record, line)], self.flip))
        if self.stop_on_error:
            raise UserError(problem)
        return {"question_id": line["question_id"], "answer": "", "error": problem}
