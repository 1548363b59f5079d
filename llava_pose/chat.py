"""Talk about a picture in a terminal: one question, or a session with history.

The terminal's own needs live here: answers as they grow, ``<pose>`` as a readable chip, pictures of answers.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from . import taxonomy
from .api import LlavaPose
from .configuration import POSE_TOKEN
from .errors import UserError
from .generation import Answer
from .images import Box, check_png_target, crop_box, open_image, save_png
from .overlay import PosedAnswer, answer_picture
from .predictions import posed_answer
from .terminal import note, styled
from .words import pose_text, pose_words

HELP = """\
Type a question about the picture and press Enter.
  /image PATH   talk about another picture (starts a new conversation)
  /save PNG     save the last answer's picture, with the axes of each object drawn
  /help         this text
  /quit         leave (so does Ctrl-D)
Ctrl-C stops an answer."""

PROMPT = "> "


class Session:
    """A conversation about one picture at a time, or about the object in a box of it.

    save: where the picture of each answer goes (the newest replaces the one before), or None; box: (x1, y1, x2, y2) in
    pixels, all the model then sees of the picture, or None for the whole.
    """

    def __init__(
        self,
        model: LlavaPose,
        image: Image.Image | None = None,
        save: str | Path | None = None,
        box: Box | None = None,
    ):
        self.model = model
        self.image = image
        self.save_path = save
        self.box = box
        self.messages: list[dict[str, Any]] = []
        self.last: Answer | None = None

    def ask(self, question: str) -> None:
        """Answer on stdout, each pose in degrees and words below, and save the picture if one is wanted.

        A question that is interrupted leaves the history as it was. Raises UserError without a picture, and for a
        question too long for the model.
        """
        if self.image is None:
            raise UserError("no picture to talk about yet: /image PATH opens one")
        messages = self.model.recent([*self.messages, {"role": "user", "content": question}])
        if len(messages) <= len(self.messages):
            note("the conversation outgrew the model: its beginning is forgotten")
        answer = print_stream(self.model.stream(crop_box(self.image, self.box), messages))
        print_poses(answer)
        self.messages = [*messages, {"role": "assistant", "content": answer.text}]
        self.last = answer
        if self.save_path is not None:
            self.save(self.save_path)

    def save(self, path: str | Path) -> None:
        """Save the picture of the last answer. Raises UserError when there is none, or no place for it."""
        if self.image is None or self.last is None:
            raise UserError("/save: no answer yet whose picture could be saved")
        check_png_target(path)
        answers = posed_answers(self.last, self.box)
        if not answers:
            [found] = self.model.predict([self.image], boxes=[self.box])
            answers = [posed_answer(taxonomy.spoken_name(found.category), found.reading, self.box)]
            note(f"the answer holds no pose; the picture shows what `predict` finds: {answers[0].name}, {found.words}")
        save_png(answer_picture(self.image, answers), path)
        note(f"saved {path}")

    def open(self, path: str) -> None:
        """Turn to another picture and start a new conversation. Raises UserError when the file is no image."""
        self.image, self.box = open_image(path), None
        self.messages, self.last = [], None

    def run(self) -> None:
        """Answer every line of stdin until it ends or says /quit.

        At a keyboard a mistake is told and the session goes on; piped in, it raises UserError and ends it.
        """
        keyboard = sys.stdin.isatty()
        if keyboard:
            with contextlib.suppress(ImportError):  # not everywhere; then lines are read without editing
                import readline  # noqa: F401
            note(HELP)
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
        elif command in ("/image", "/save"):
            if not argument:
                raise UserError(f"{command}: name a file")
            (self.open if command == "/image" else self.save)(str(Path(argument).expanduser()))
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
    """The answer's text with each ``<pose>`` as a chip, ⟨azimuth 312°, elevation 11°, theta 2°⟩, and without what
    could command a terminal.

    A character whose last bytes are still to come shows as U+FFFD at the end, and is left out.
    """
    pieces = "".join(filter(str.isprintable, answer.text)).split(POSE_TOKEN)
    text = pieces[0]
    for piece, reading in zip(pieces[1:], answer.readings, strict=True):
        text += styled(f"⟨{pose_text(reading.pose)}⟩", "36") + piece
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


def print_poses(answer: Answer) -> None:
    """A line for each pose of an answer: degrees, words, and how sure the model is; numbered if there are several.

    Where the object may well be turned otherwise, as one that looks alike from behind, a second line says how.
    """
    several = len(answer.readings) > 1
    for number, reading in enumerate(answer.readings, start=1):
        bullet = f"{number}. " if several else ""
        print(f"  {bullet}{pose_words(reading.pose)}  ({reading.confidence:.0%} sure)", flush=True)
        if reading.alternative is not None:
            other = reading.alternative
            print(f"  {' ' * len(bullet)}or {pose_words(other.pose)}  ({other.probability:.0%})", flush=True)


def posed_answers(answer: Answer, box: Box | None = None) -> list[PosedAnswer]:
    """Each pose of an answer with the name of what it belongs to: the category spoken just before its mark.

    A box that was asked about is where a lone object is; several in it are not told apart.
    """
    pieces = answer.text.split(POSE_TOKEN)[:-1]
    place = box if len(pieces) == 1 else None
    return [
        posed_answer(name_at_end(piece), reading, place) for piece, reading in zip(pieces, answer.readings, strict=True)
    ]


def name_at_end(text: str) -> str:
    """The longest spoken category name that ends a text; "object" where there is none.

    >>> name_at_end("A photo of a dining table")
    'dining table'
    """
    words = f" {text.strip()}".casefold()
    names = [taxonomy.spoken_name(category) for category in taxonomy.categories()]
    return max((name for name in names if words.endswith(f" {name.casefold()}")), key=len, default="object")
