"""Write the captions of a data folder anew, each mention of an object followed by its <pose> mark.

    python data_prep/captions.py --data DIR --writer template
    python data_prep/captions.py --data DIR --writer file --captions PATH
    OPENAI_API_KEY=… python data_prep/captions.py --data DIR --writer llm --model NAME [--base-url URL]

template: from the row's objects, the phrasing drawn by the image's name. file: captions of any form that
``caption_files`` reads; rows without one keep theirs. llm: by a language model that sees the pictures, at any
OpenAI-compatible endpoint; what it cannot tell, the template does. Its answers are kept beside DIR, in
DIR.captions.jsonl: the same command after an interruption, or on the data made anew, pays for none of them twice.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data_prep.captioning.caption_align import aligned
from data_prep.captioning.caption_files import caption_places, caption_text
from data_prep.captioning.caption_templates import template_caption
from data_prep.captioning.fill import columns, data_shards, fill, objects_of, row_seed
from llava_pose import taxonomy
from llava_pose.arguments import CommandParser, positive_number, whole_number
from llava_pose.errors import UserError, run_cli
from llava_pose.scene import PosedObject

LLM_OPTIONS = ("model", "base_url", "concurrency", "requests_per_minute", "timeout", "price_in", "price_out")


def write_templates(folder: Path) -> str:
    """Template captions for every row; returns what was done."""
    rows = fill(folder, lambda row: columns(*template_caption(objects_of(row), row_seed(row))))
    return f"{folder}: {rows} captions written by the template writer"


def write_from_files(folder: Path, captions: Path) -> str:
    """The captions of a file or folder for the rows they speak of; the others keep theirs. Returns what was done.

    A caption's marks count the objects of the whole image; a row gets it if it shows all that it speaks of.

    Raises:
        UserError: a caption cannot be read or aligned, or there is none for any row.
    """
    if not captions.exists():
        raise UserError(f"{captions}: no such file or folder of captions")
    places = caption_places(captions) or [captions]
    objects = _objects_of_images(folder)
    told: dict[str, tuple[str, tuple[int, ...]] | None] = {}
    counts: Counter[str] = Counter()

    def caption_of(row: dict[str, Any]) -> dict[str, Any]:
        image_id = row["image_id"]
        if image_id not in told:
            told[image_id] = _caption_of_image(places, image_id, objects[image_id])
        found = told[image_id]
        shown = {item["object_id"] for item in row["objects"]}
        kind = "without" if found is None else "written" if shown.issuperset(found[1]) else "of more"
        counts[kind] += 1
        return columns(*found) if found and kind == "written" else columns(row["caption"], row["caption_objects"])

    # Looked at before anything is written: a path that has nothing to do with the data is a mistake.
    if not any(_text_of_image(places, image_id) for image_id in objects):
        raise UserError(f"{captions}: holds no caption for any image of {folder}")
    fill(folder, caption_of)
    kept = f"rows without a caption there keep theirs: {counts['without']}"
    return (
        f"{folder}: {counts['written']} captions written from {captions}; {kept}; "
        f"rows that show less than their caption tells keep theirs: {counts['of more']}"
    )


def _objects_of_images(folder: Path) -> dict[str, list[PosedObject]]:
    """The objects of each image, in the order of its annotation, from all rows that show it."""
    objects: dict[str, dict[int, PosedObject]] = defaultdict(dict)
    for shard, _ in data_shards(folder):
        for row in pq.read_table(shard, columns=["image_id", "objects"]).to_pylist():
            objects[row["image_id"]].update({item.object_id: item for item in objects_of(row)})
    return {image_id: [items[index] for index in sorted(items)] for image_id, items in objects.items()}


def _text_of_image(places: Sequence[Path], image_id: str) -> tuple[str, str] | None:
    category, _, name = image_id.rpartition("/")
    return next((found for place in places if (found := caption_text(place, category, name))), None)


def _caption_of_image(
    places: Sequence[Path], image_id: str, objects: Sequence[PosedObject]
) -> tuple[str, tuple[int, ...]] | None:
    found = _text_of_image(places, image_id)
    return None if found is None else aligned(found[1], objects, found[0])


def write_by_llm(options: argparse.Namespace) -> None:
    """Captions by a language model; prints what was done."""
    try:
        from data_prep.captioning.llm_captions import Prices, write_captions
        from data_prep.captioning.llm_endpoint import EndpointSettings
    except ModuleNotFoundError as error:
        raise UserError(f"--writer llm: needs the package {error.name}: pip install 'llava-pose[data]'") from error
    if not options.model:
        raise UserError("--model: needed with --writer llm")
    if options.base_url and not re.match(r"https?://\S+$", options.base_url):
        raise UserError(f"--base-url: {options.base_url!r} is not an address (http://… or https://…)")
    given = {name: getattr(options, name) for name in LLM_OPTIONS if getattr(options, name) is not None}
    prices = Prices(given.pop("price_in", 0.0), given.pop("price_out", 0.0))
    write_captions(options.data, EndpointSettings(**given), prices)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, write the captions and say how many."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder that a data_prep script wrote")
    parser.add_argument("--writer", choices=["template", "file", "llm"], default="template")
    parser.add_argument("--taxonomy", type=Path, help="file of categories of your own")
    parser.add_argument("--captions", type=Path, help="file: where the captions are")
    parser.add_argument("--model", help="llm: the model's name")
    parser.add_argument("--base-url", help="llm: the endpoint's address, up to /v1")
    parser.add_argument("--concurrency", type=whole_number, help="llm: questions under way at once (8)")
    parser.add_argument("--requests-per-minute", type=positive_number, help="llm: at most so many")
    parser.add_argument("--timeout", type=positive_number, help="llm: seconds to wait for an answer (120)")
    parser.add_argument("--price-in", type=positive_number, help="llm: price of a million tokens read")
    parser.add_argument("--price-out", type=positive_number, help="llm: price of a million tokens written")
    options = parser.parse_args(argv)
    for writer, names in (("file", ("captions",)), ("llm", LLM_OPTIONS)):
        unfit = [name for name in names if getattr(options, name) is not None and options.writer != writer]
        if unfit:
            raise UserError(f"--{unfit[0].replace('_', '-')}: only with --writer {writer}")
    if options.taxonomy:
        taxonomy.use_file(options.taxonomy)
    taxonomy.use_folder(options.data)
    if options.writer == "llm":
        write_by_llm(options)
    elif options.writer == "file":
        if options.captions is None:
            raise UserError("--captions: needed with --writer file")
        print(write_from_files(options.data, options.captions))
    else:
        print(write_templates(options.data))


if __name__ == "__main__":
    run_cli(main)
