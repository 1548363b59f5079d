"""The ``llava-pose`` command: ``predict``, ``chat``, ``serve``, ``merge``, ``push`` and ``info``.

Only what ``--help`` needs is imported here; torch and transformers come with the command that uses them, after
everything that can be wrong with the arguments has been checked.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from . import __version__, folder_commands
from .arguments import CommandParser
from .errors import UserError, run_cli
from .serving import command as serving

if TYPE_CHECKING:
    from .images import Box
    from .predictions import Prediction

DESCRIPTION = """\
Name the objects in a picture and tell how they are posed in 3D.

A pose is three angles in degrees (radians in --json):
  azimuth    which side is seen: 0 its front, 90 its own left, 180 its back, 270 its own right
  elevation  how high the camera stands: 90 straight above, 0 level, -90 straight below
  theta      how far the object is rotated in the plane of the picture"""

EXAMPLES = """\
examples:
  llava-pose predict photo.png
  llava-pose chat photo.png --ask "Which way does the car face?" --save answer.png
  llava-pose chat photo.png
  llava-pose serve
  llava-pose info

llava-pose COMMAND --help tells more. Exit code: 0 done, 2 a mistake in what was asked (one line says which)."""

PREDICT_EXAMPLES = """\
examples:
  llava-pose predict photo.png
  llava-pose predict photos/*.png --json > poses.json
  llava-pose predict street.png --box 40,60,300,220 --box 310,80,420,190 --save street_poses.png
  llava-pose predict photo.png --categories names.txt      a line each: car, bus, dining table, ...
  llava-pose predict photo.png --model runs/demo/train/final

output, a line an object (its name and how probable it is among the categories, its pose, how sure the pose is):
  photo.png  car 98%  azimuth 312°, elevation 11°, theta 2° · seen from its front-right, from slightly above  (71% sure)
Where the object may well be turned otherwise, as one that looks alike from behind, that follows: (or azimuth 132°, …).

--json prints one array; each object has image, category, class_probability, azimuth, elevation, theta (radians, null
where no pose could be read), spread (of each angle), confidence (0 to 1: that the pose errs by less than 30 degrees),
expected_error (radians), alternative (null, or azimuth, elevation, theta, probability, turn), calibrated (whether these
were fitted to how often the model was right), joint_confidence (that the category is right, too) and box (null for the
whole picture)."""

CHAT_EXAMPLES = """\
examples:
  llava-pose chat photo.png --ask "Which way does the car face?"
  llava-pose chat photo.png --box 40,60,300,220 --ask "How far must the car turn to face me?" --save answer.png
  llava-pose chat photo.png                    a session; /help lists its commands
  llava-pose chat photo.png < questions.txt    a question a line

Each pose in the answer shows as ⟨azimuth 312°, elevation 11°, theta 2° · front-right, slightly above · 83% sure⟩: its
angles, the own side and the height that it is seen from, and how sure the model is. Words about a pose are computed
from its angles. The saved picture has each object's front, left and up axes drawn in the picture's
middle, side by side when there are several (the model says how an object is turned, not where it is). If the answer
holds no pose, the picture shows the object that `llava-pose predict` finds."""

COMPLETION_SUMMARY = "Print what makes a shell complete this command's words and file names."
COMPLETION_EXAMPLES = """\
examples:
  llava-pose completion bash > ~/.local/share/bash-completion/completions/llava-pose
  llava-pose completion zsh > ~/.zfunc/_llava-pose     with ~/.zfunc in fpath"""

DIRECTORIES = ("DIR", "DIR_OR_HUB_ID")
FILES = ("FILE", "IMAGE", "JSON", "PNG")
"""What options and arguments are shown as that a shell completes with names of folders, and of files."""

FLIP_HELP = "read each pose in the mirror image too: a little better, and slower"
MODEL_HELP = "a model folder or a hub name (owner/name); without it, the small model that comes with this package"


def entry() -> NoReturn:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal or pipe that lacks a character gets a question mark in its place.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    # What libraries say to programmers; what is wrong is told as an error.
    warnings.simplefilter("ignore")
    run_cli(main)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command, from the process's arguments when none are given. Raises UserError for a user's mistake."""
    parsed = _parser().parse_args(arguments)
    parsed.run(parsed)


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = CommandParser(prog="llava-pose", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"llava-pose {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(name: str, run: Any, summary: str, examples: str | None = None) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=summary, description=summary, epilog=examples, formatter_class=raw)
        added.add_argument("--model", metavar="DIR_OR_HUB_ID", default="embedded", help=MODEL_HELP)
        added.set_defaults(run=run)
        return added

    predict = command("predict", _predict, "Name the object in each picture and read its pose.", PREDICT_EXAMPLES)
    predict.add_argument("images", metavar="IMAGE", nargs="+", help="a picture")
    predict.add_argument(
        "--box",
        type=_box,
        action="append",
        default=[],
        metavar="x1,y1,x2,y2",
        help="where the object is, in pixels of the upright picture; once for each object, with one IMAGE",
    )
    predict.add_argument("--categories", metavar="FILE", help="choose among these names only: a text file, one a line")
    predict.add_argument("--flip", action="store_true", help=FLIP_HELP)
    predict.add_argument("--json", action="store_true", help="print JSON")
    predict.add_argument("--save", metavar="PNG", help="save the picture with the objects' axes drawn, with one IMAGE")

    chat = command("chat", _chat, "Ask about a picture: one question, or a session.", CHAT_EXAMPLES)
    chat.add_argument("image", metavar="IMAGE", nargs="?", help="a picture (a session can open one with /image)")
    chat.add_argument(
        "--box", type=_box, metavar="x1,y1,x2,y2", help="the object meant, in pixels of the upright picture"
    )
    chat.add_argument("--ask", metavar="TEXT", help="answer this one question and leave")
    chat.add_argument("--flip", action="store_true", help=FLIP_HELP)
    chat.add_argument("--save", metavar="PNG", help="save the picture of the answer (in a session: of the latest)")

    serving.add_options(command("serve", serving.serve, serving.SUMMARY, serving.EXAMPLES))

    merge = command("merge", folder_commands.merge, folder_commands.MERGE_SUMMARY, folder_commands.MERGE_EXAMPLES)
    folder_commands.add_merge_options(merge)
    push = command("push", folder_commands.push, folder_commands.PUSH_SUMMARY, folder_commands.PUSH_EXAMPLES)
    folder_commands.add_push_options(push)

    command("info", _info, "Tell versions, devices, and which model there is and what is missing.")

    completion = commands.add_parser(
        "completion",
        help=COMPLETION_SUMMARY,
        description=COMPLETION_SUMMARY,
        epilog=COMPLETION_EXAMPLES,
        formatter_class=raw,
    )
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="the shell")
    completion.set_defaults(run=lambda arguments: print(_completion(parser, commands, arguments.shell)))
    return parser


def _box(text: str) -> Box:
    from .images import parse_box

    try:
        return parse_box(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("box: ")) from error


def _predict(arguments: argparse.Namespace) -> None:
    from .folders import model_source, use_taxonomy_of
    from .images import check_box, check_png_target, image_size, save_png
    from .taxonomy import read_category_file

    images, boxes = arguments.images, arguments.box or [None]
    for option in ("box", "save"):
        if getattr(arguments, option) and len(images) > 1:
            raise UserError(f"--{option}: goes with one IMAGE, got {len(images)}")
    sizes = [image_size(path) for path in images]
    for box in arguments.box:
        check_box(box, sizes[0])
    categories = None
    if arguments.categories:
        use_taxonomy_of(model_source(arguments.model))
        categories = read_category_file(arguments.categories)
    if arguments.save:
        check_png_target(arguments.save)

    from .terminal import note, open_model

    model = open_model(arguments.model)

    from .api import BATCH, batched

    found: list[tuple[str, Prediction]] = []
    for batch in batched(((path, box) for path in images for box in boxes), BATCH):
        paths = [path for path, _ in batch]
        predictions = model.predict(paths, categories, [box for _, box in batch], flip=arguments.flip)
        found += zip(paths, predictions, strict=True)
        if not arguments.json:
            for path, prediction in zip(paths, predictions, strict=True):
                print(_line(path, prediction), flush=True)
    if arguments.json:
        print(json.dumps([{"image": path, **prediction.to_dict()} for path, prediction in found], indent=2))
    if arguments.save:
        from .predictions import draw

        save_png(draw([prediction for _, prediction in found]), arguments.save)
        note(f"saved {arguments.save}")


def _line(path: str, prediction: Prediction) -> str:
    """A prediction for people; see ``PREDICT_EXAMPLES``."""
    from .taxonomy import spoken_name
    from .terminal import styled
    from .words import pose_text

    where = "" if prediction.box is None else "[" + ",".join(f"{edge:g}" for edge in prediction.box) + "]"
    name = styled(f"{spoken_name(prediction.category)} {prediction.class_probability:.0%}", "1")
    other = prediction.alternative
    told = "" if other is None else f"  (or {pose_text(other.pose)}: {other.probability:.0%})"
    return f"{path}{where}  {name}  {prediction.words}  ({prediction.confidence:.0%} sure){told}"


def _chat(arguments: argparse.Namespace) -> None:
    from .images import check_box, check_png_target, open_image

    if arguments.ask is not None and not arguments.ask.strip():
        raise UserError("--ask: the question is empty")
    if arguments.image is None and (arguments.ask is not None or not sys.stdin.isatty()):
        raise UserError("IMAGE: name the picture that is asked about (llava-pose chat --help explains)")
    image = None if arguments.image is None else open_image(arguments.image)
    if arguments.box is not None:
        if image is None:
            raise UserError("--box: goes with an IMAGE")
        check_box(arguments.box, image.size)
    if arguments.save:
        check_png_target(arguments.save)

    from .terminal import open_model

    model = open_model(arguments.model)

    from .chat import Session

    session = Session(model, image, arguments.save, arguments.box, arguments.image or "", arguments.flip)
    if arguments.ask is None:
        session.run()
    else:
        session.ask(arguments.ask)


def _info(arguments: argparse.Namespace) -> None:
    from .info import report

    for line in report(arguments.model):
        print(line)


def _completion(parser: argparse.ArgumentParser, commands: Any, shell: str) -> str:
    import shtab

    for command in commands.choices.values():
        for action in command._actions:
            if action.metavar in DIRECTORIES:
                action.complete = shtab.DIRECTORY
            elif action.metavar in FILES:
                action.complete = shtab.FILE
    return str(shtab.complete(parser, shell))


if __name__ == "__main__":
    entry()
