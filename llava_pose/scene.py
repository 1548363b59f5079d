"""The record: an image with its posed objects, a row of a data set and what training and evaluation read.

Pixels are measured from the image's upper left corner, so that column i covers [i, i + 1) and a flip takes x
to width − x. Angles are radians. Images are used as stored: an EXIF rotation is not applied, because
annotations refer to stored pixels.
"""

from __future__ import annotations

import dataclasses
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from llava_pose import taxonomy
from llava_pose.annotations import read_annotations, skip_reason
from llava_pose.errors import UserError
from llava_pose.geometry import mirror_pose
from llava_pose.sides import mirrored_text

if TYPE_CHECKING:
    import datasets

__all__ = [
    "POSE_MARK",
    "PosedImage",
    "PosedObject",
    "crop_kind",
    "features",
    "load_split",
    "objects_from_annotations",
    "posed_object",
    "read_annotations",
    "shard_rows",
]

POSE_MARK = "<pose>"
DEFAULT_VIEWPORT = 2000.0
"""The focal length in pixels of annotations that give none."""


@dataclass(frozen=True)
class PosedObject:
    """One object of an image: what it is, where it is, and how it is turned.

    ``object_id`` is its index in the annotation file; ``bbox`` (x1, y1, x2, y2), ``px``, ``py`` (its origin)
    and ``viewport`` (the focal length) are pixels of the record's image; ``distance`` is in object units;
    ``cad_index`` is -1, ``status`` and ``dense`` are empty where unknown.
    """

    object_id: int
    category: str
    bbox: tuple[float, float, float, float]
    azimuth: float
    elevation: float
    theta: float
    distance: float
    px: float
    py: float
    viewport: float
    cad_index: int
    status: str
    dense: str

    @property
    def pose(self) -> np.ndarray:
        """Azimuth, elevation, theta: (3,) float64, radians."""
        return np.array([self.azimuth, self.elevation, self.theta], dtype=np.float64)

    def mirrored(self, width: float) -> PosedObject:
        """The object in the flipped image of this width; exact for left-right symmetric objects."""
        azimuth, elevation, theta = (float(angle) for angle in mirror_pose(self.pose))
        x1, y1, x2, y2 = self.bbox
        return dataclasses.replace(
            self,
            bbox=(width - x2, y1, width - x1, y2),
            azimuth=azimuth,
            elevation=elevation,
            theta=theta,
            px=width - self.px,
        )


@dataclass(frozen=True)
class PosedImage:
    """An image (RGB), its objects, and a caption whose every ``<pose>`` follows the mention of an object.

    ``image_id`` is ``{category}/{name}``; ``caption_objects`` holds the ``object_id`` of each mark in order.
    The image is None where only what is known about it is needed (training on cached features).

    Raises:
        UserError: on construction, where size, marks or object ids disagree; the message names the image.
    """

    image: Image.Image | None
    image_id: str
    width: int
    height: int
    objects: tuple[PosedObject, ...]
    caption: str
    caption_objects: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.image is not None and (self.width, self.height) != self.image.size:
            raise UserError(
                f"{self.image_id}: width, height: {self.width}x{self.height}, but the image has "
                f"{self.image.width}x{self.image.height}"
            )
        marks = self.caption.count(POSE_MARK)
        if marks != len(self.caption_objects):
            raise UserError(f"{self.image_id}: caption_objects: {len(self.caption_objects)} for {marks} <pose> marks")
        unknown = set(self.caption_objects) - {item.object_id for item in self.objects}
        if unknown:
            raise UserError(f"{self.image_id}: caption_objects: no object has id {min(unknown)}")

    def mirrored(self) -> PosedImage:
        """The horizontally flipped record.

        Where the caption speaks of left, right or a turning direction, those words change places. Where such a
        word may have another meaning ("right next to") it is emptied, for the reader to write a new one from the
        flipped objects.
        """
        caption = mirrored_text(self.caption)
        return dataclasses.replace(
            self,
            image=self.image and self.image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
            objects=tuple(item.mirrored(self.width) for item in self.objects),
            caption=caption or "",
            caption_objects=self.caption_objects if caption else (),
        )

    def to_row(self) -> dict[str, Any]:
        """The record as a row of ``features()``; the image is left to ``datasets`` to encode."""
        row = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        row["objects"] = [{**vars(item), "bbox": list(item.bbox)} for item in self.objects]
        row["caption_objects"] = list(self.caption_objects)
        return row

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> PosedImage:
        """The record behind a row of ``features()``, its image decoded, still a dict of bytes, or left out.

        Raises:
            UserError: the image cannot be decoded, or the row contradicts itself.
        """
        image = row.get("image")
        try:
            if isinstance(image, dict):
                image = Image.open(io.BytesIO(image["bytes"]))
            image = image and image.convert("RGB")
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"{row['image_id']}: image: cannot be decoded: {error}") from error
        objects = tuple(PosedObject(**{**item, "bbox": tuple(item["bbox"])}) for item in row["objects"])
        values = {**row, "image": image, "objects": objects, "caption_objects": tuple(row["caption_objects"])}
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})


def posed_object(annotation: dict[str, Any], object_id: int, category: str) -> PosedObject:
    """The object behind one dict of ``read_annotations`` that is not to be skipped.

    ``category`` stands in where the dict has no ``class``, the viewport is 2000 where it has none.

    Raises:
        UserError: the category is not in the taxonomy.
    """
    return PosedObject(
        object_id=object_id,
        category=taxonomy.resolve(annotation.get("class", category)),
        bbox=annotation["bbox"],
        azimuth=annotation["azimuth"],
        elevation=annotation["elevation"],
        theta=annotation["theta"],
        distance=annotation["distance"],
        px=annotation["px"],
        py=annotation["py"],
        viewport=annotation.get("viewport", DEFAULT_VIEWPORT),
        cad_index=annotation.get("cad_index", -1),
        status=annotation.get("object_status", ""),
        dense=annotation.get("dense", ""),
    )


def objects_from_annotations(annotations: list[dict[str, Any]], category: str) -> list[PosedObject]:
    """The objects of a file that the authors use, each with its index in the file as ``object_id``.

    Raises:
        UserError: a category is not in the taxonomy.
    """
    return [
        posed_object(annotation, index, category)
        for index, annotation in enumerate(annotations)
        if skip_reason(annotation) is None
    ]


def features() -> datasets.Features:
    """The columns of a data set of posed images."""
    from datasets import Features, List, Value
    from datasets import Image as ImageFeature

    real, whole, text = Value("float64"), Value("int32"), Value("string")
    posed_object_features = {
        "object_id": whole,
        "category": text,
        "bbox": List(real),
        **dict.fromkeys(("azimuth", "elevation", "theta", "distance", "px", "py", "viewport"), real),
        "cad_index": whole,
        "status": text,
        "dense": text,
    }
    return Features(
        {
            "image": ImageFeature(),
            "image_id": text,
            "width": whole,
            "height": whole,
            "objects": List(posed_object_features),
            "caption": text,
            "caption_objects": List(whole),
        }
    )


def crop_kind(data_dir: str | Path) -> str | None:
    """How the rows of a data folder were cut ("object", "box", "scene"), as its README.md says; None where it does not.

    A score means little without it: object crops are made with the true distance, which a user does not have.
    """
    card = Path(data_dir) / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    found = re.search(r"^crop: (object|box|scene)$", text, flags=re.MULTILINE)
    return found[1] if found else None


def load_split(data_dir: str | Path, split: str) -> datasets.Dataset:
    """Open one split of a data folder that ``data_prep`` wrote, with the columns of ``features()``.

    Where the data has categories of its own, they are in the taxonomy from then on.

    Raises:
        UserError: the folder or the split is missing, the split is empty or its files are damaged, a column of
            ``features()`` is missing or of another type, a category is not in the taxonomy, or the folder's
            taxonomy is wrong or contradicts one in use.
    """
    folder = Path(data_dir)
    if not folder.is_dir():
        raise UserError(f"{folder}: data folder does not exist")
    shards = sorted(str(path) for path in folder.glob(f"{split}-*.parquet"))
    if not shards:
        found = sorted({path.name.split("-")[0] for path in folder.glob("*-*.parquet")})
        raise UserError(f"{folder}: no split {split!r} (found: {', '.join(found) or 'none'})")
    # Looked at first, because datasets logs a traceback of its own on a file that it cannot read.
    if not sum(shard_rows(Path(shard)) for shard in shards):
        raise UserError(f"{folder}: split {split!r} is empty")
    taxonomy.use_folder(folder)
    for shard in shards:
        taxonomy.check_canonical(_categories_in(shard), shard)
    from datasets import load_dataset

    return load_dataset("parquet", data_files={split: shards}, split=split)


def _categories_in(shard: str) -> list[str]:
    import pyarrow.compute
    import pyarrow.parquet

    objects = pyarrow.parquet.read_table(shard, columns=["objects"])["objects"]
    return pyarrow.compute.list_flatten(objects).combine_chunks().field("category").unique().to_pylist()


def shard_rows(shard: Path) -> int:
    """The number of rows of a Parquet file with the columns of ``features()``.

    Raises:
        UserError: the file is damaged, or a column is missing or of another type.
    """
    import pyarrow
    import pyarrow.parquet
    from datasets import Features

    try:
        with pyarrow.parquet.ParquetFile(shard) as file:
            rows, found = file.metadata.num_rows, Features.from_arrow_schema(file.schema_arrow)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{shard}: cannot be read: {error}") from error
    for name, kind in features().items():
        if found.get(name) != kind:
            raise UserError(f"{shard}: column {name!r} is missing or of another type")
    return rows
