"""Talk about a picture in a terminal: one question, or a session with history.

The terminal's own needs live here: answers as they grow, ``<pose>`` as a readable chip, pictures of answers.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from . import taxonomy
from .api import LlavaPose
from .configuration import POSE_TOKEN
from .errors import UserError
from .files import write_atomic
from .generation import Answer
from .images import Box, check_box, check_png_target, open_image, parse_box, save_png
from .overlay import PosedAnswer, answer_picture
from .predictions import posed_answer
from .serving.poses import answer_poses, chip, name_at_end
from .terminal import note, styled
from .turns import Picture
from .words import pose_words

HELP = """\
Type a question about the picture and press Enter.
  /image PATH         talk about another picture (starts a new conversation)
  /add PATH           put one more picture into the conversation, before the next question
  /box x1,y1,x2,y2    talk about the object in this box of the picture (starts a new conversation)
  /box                talk about the whole picture again (starts a new conversation)
  /save PNG           save the last answer's picture, with the axes of each object drawn
  /export JSON        save the conversation with all its poses
  /help               this text
  /quit               leave (so does Ctrl-D)
Ctrl-C stops an answer."""

PROMPT = "> "
UNCALIBRATED = (
    "how sure this model says it is, is its own word: it was never fitted to data (llava-pose info tells more)"
)


class Session:
    """A conversation about pictures, each of which may be seen at a box alone.

    save: where the picture of each answer goes (the newest replaces the one before), or None; box: (x1, y1, x2, y2) in
    pixels, all the model then sees of the picture, or None for the whole; flip: whether poses are read in the mirror
    image as well.
    """

    def __init__(
        self,
        model: LlavaPose,
        image: Image.Image | None = None,
        save: str | Path | None = None,
        box: Box | None = None,
        name: str = "",
        flip: bool = False,
    ):
        self.model, self.flip = model, flip
        self.save_path = save
        self.begin([] if image is None else [Picture(image, box, name)])

    def begin(self, pictures: list[Picture]) -> None:
        """Start a conversation about these pictures."""
        self.pictures = pictures
        self.shown = 0
        self.messages: list[dict[str, Any]] = []
        # Of every answer, with the picture it was given about.
        self.answers: list[tuple[Answer, Picture]] = []

    @property
    def picture(self) -> Picture:
        """The one that is talked about: the latest. Raises UserError without one."""
        if not self.pictures:
            raise UserError("no picture to talk about yet: /image PATH opens one")
        return self.pictures[-1]

    def ask(self, question: str) -> None:
        """Answer on stdout, with each pose as a chip, and save the picture if one is wanted.

        A question that is interrupted leaves the history as it was. Raises UserError without a picture, and for a
        question too long for the model.
        """
        picture = self.picture
        messages = self.model.recent([*self.messages, {"role": "user", "content": self._content(question)}])
        if len(messages) <= len(self.messages):
            note("the conversation outgrew the model: its beginning is forgotten")
        answer = print_stream(self.model.stream(None, messages, self.flip))
        print_alternatives(answer)
        self.messages = [*messages, {"role": "assistant", "content": answer.text}]
        self.shown = len(self.pictures)
        self.answers.append((answer, picture))
        if self.save_path is not None:
            self.save(self.save_path)

    def _content(self, question: str) -> str | list[dict[str, Any]]:
        """The question with the pictures that no question has shown yet."""
        new = self.pictures[self.shown :]
        parts = [{"type": "image", "image": each.image} | ({"box": each.box} if each.box else {}) for each in new]
        return [*parts, {"type": "text", "text": question}] if new else question

    def save(self, path: str | Path) -> None:
        """Save the picture of the last answer. Raises UserError when there is none, or no place for it."""
        if not self.answers:
            raise UserError("/save: no answer yet whose picture could be saved")
        check_png_target(path)
        answer, (image, box, _) = self.answers[-1]
        posed = posed_answers(answer, box)
        if not posed:
            [found] = self.model.predict([image], boxes=[box], flip=self.flip)
            posed = [posed_answer(taxonomy.spoken_name(found.category), found.reading, box)]
            note(f"the answer holds no pose; the picture shows what `predict` finds: {posed[0].name}, {found.words}")
        save_png(answer_picture(image, posed), path)
        note(f"saved {path}")

    def export(self, path: str | Path) -> None:
        """Save the conversation as JSON: ``pictures`` (name, width, height, box) and ``messages``; a user's has
        ``pictures`` (their numbers), an assistant's ``poses``, one for each ``<pose>`` of its content (``pose_json``).

        Raises UserError when there is no answer yet, and when it cannot be written.
        """
        if not self.answers:
            raise UserError("/export: no answer yet that could be saved")
        answers, messages = iter(self._answers_kept()), []
        for message in self.messages:
            if message["role"] == "assistant":
                answer, picture = next(answers)
                messages.append({**message, "poses": answer_poses(answer, box=picture.box)})
            else:
                messages.append(self._asked(message["content"]))
        pictures = [
            {"name": name, "width": image.width, "height": image.height, "box": box}
            for image, box, name in self.pictures
        ]
        try:
            text = json.dumps({"pictures": pictures, "messages": messages}, indent=2, ensure_ascii=False)
            write_atomic(Path(path), text + "\n")
        except OSError as error:
            raise UserError(f"/export: {path}: cannot be written: {error.strerror}") from error
        note(f"saved {path}")

    def _asked(self, content: str | list[dict[str, Any]]) -> dict[str, Any]:
        """A question with the numbers of the pictures that it shows."""
        parts = [] if isinstance(content, str) else content[:-1]
        numbers = [self._number(part["image"]) for part in parts]
        return {
            "role": "user",
            "content": content if isinstance(content, str) else content[-1]["text"],
            "pictures": numbers,
        }

    def _number(self, image: Image.Image) -> int:
        return next(number for number, picture in enumerate(self.pictures) if picture.image is image)

    def _answers_kept(self) -> list[tuple[Answer, Picture]]:
        """Those that the messages still hold: the oldest may have been forgotten."""
        count = sum(message["role"] == "assistant" for message in self.messages)
        return self.answers[len(self.answers) - count :]

    def open(self, path: str) -> None:
        """Turn to another picture and start a new conversation. Raises UserError when the file is no image."""
        self.begin([Picture(open_image(path), None, path)])

    def add(self, path: str) -> None:
        """Put one more picture into the conversation. Raises UserError when the file is no image."""
        self.pictures = [*self.pictures, Picture(open_image(path), None, path)]

    def look_at(self, text: str) -> None:
        """Turn to the object in a box of the picture, or with no text to the whole of it, in a new conversation.

        Raises UserError for what is no box of it.
        """
        image, _, name = self.picture
        box = parse_box(text) if text else None
        if box is not None:
            check_box(box, image.size)
        self.begin([Picture(image, box, name)])

    def run(self) -> None:
        """Answer every line of stdin until it ends or says /quit.

        At a keyboard a mistake is told and the session goes on; piped in, it raises UserError and ends it.
        """
        keyboard = sys.stdin.isatty()
        if keyboard:
            with contextlib.suppress(ImportError):  # not everywhere; then lines are read without editing
                import readline  # noqa: F401
            note(HELP)
            if self.model.engine.model.calibration is None:
                note(UNCALIBRATED)
        while True:
            try:
                line = read_line(keyboard)
                if line is None or not self._act(line.strip()):
                    return
            except KeyboardInterrupt:
                # Stops the answer, or clears the line that was being typed, as shells do.
                print()
            except UserError as error:
                if not keyboard:
                    raise
                note(f"error: {error}")

    def _act(self, line: str) -> bool:
        """Do what a line says; False to leave."""
        command, _, argument = line.partition(" ")
        argument = argument.strip().strip("'\"")
        if not line.startswith("/"):
            if line:
                self.ask(line)
        elif command in ("/quit", "/exit"):
            return False
        elif command == "/help":
            note(HELP)
        elif command == "/box":
            self.look_at(argument)
        elif command in ("/image", "/add", "/save", "/export"):
            if not argument:
                raise UserError(f"{command}: name a file")
            act = {"/image": self.open, "/add": self.add, "/save": self.save, "/export": self.export}[command]
            act(str(Path(argument).expanduser()))
        else:
            raise UserError(f"{command}: no such command (/help lists them)")
        return True


def read_line(keyboard: bool) -> str | None:
    """The next line of stdin, None at its end. The prompt never goes into piped output."""
    if keyboard and sys.stdout.isatty():
        try:
            return input(PROMPT)
        except EOFError:
            print()
            return None
    if keyboard:
        print(PROMPT, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline() or None


def readable(answer: Answer) -> str:
    """The answer's text with each ``<pose>`` as a chip, ⟨azimuth 312°, elevation 11°, theta 2° · front-right, slightly
    above · 83% sure⟩, and without what could command a terminal.

    A character whose last bytes are still to come shows as U+FFFD at the end, and is left out.
    """
    pieces = "".join(filter(str.isprintable, answer.text)).split(POSE_TOKEN)
    text = pieces[0]
    for piece, reading in zip(pieces[1:], answer.readings, strict=True):
        text += styled(f"⟨{chip(reading)}⟩", "36") + piece
    return text if answer.complete else text.rstrip("\N{REPLACEMENT CHARACTER} ")


def print_stream(answers: Iterator[Answer]) -> Answer:
    """Print an answer as it grows, and return it whole; "…" marks one that the token limit cut short."""
    printed, answer = "", Answer()
    try:
        for answer in answers:
            text = readable(answer)
            if text.startswith(printed):
                print(text[len(printed) :], end="", flush=True)
                printed = text
    finally:
        print("" if answer.complete else " …", flush=True)
    if not answer.text:
        note("the model answered nothing")
    return answer


def print_alternatives(answer: Answer) -> None:
    """A line for each pose that may well be another, as of an object that looks alike from behind; numbered if the
    answer holds several poses."""
    for number, reading in enumerate(answer.readings, start=1):
        if reading.alternative is not None:
            which = f"{number}. " if len(answer.readings) > 1 else ""
            other = reading.alternative
            print(f"  {which}or {pose_words(other.pose)}  ({other.probability:.0%})", flush=True)


def posed_answers(answer: Answer, box: Box | None = None) -> list[PosedAnswer]:
    """Each pose of an answer with the name of what it belongs to: the category spoken just before its mark.

    A box that was asked about is where a lone object is; several in it are not told apart.
    """
    pieces = answer.text.split(POSE_TOKEN)[:-1]
    place = box if len(pieces) == 1 else None
    return [
        posed_answer(name_at_end(piece), reading, place) for piece, reading in zip(pieces, answer.readings, strict=True)
    ]
