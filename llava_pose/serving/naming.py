"""``/v1/pose``: name the objects in a picture and read their poses."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Executor
from typing import NamedTuple

from fastapi import Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from llava_pose.api import LlavaPose
from llava_pose.image_inputs import ImageInputs
from llava_pose.images import Box
from llava_pose.trie import NameTrie

from .errors import mistakes_in
from .metrics import Metrics
from .pictures import checked_picture, picture_bytes
from .poses import naming_json
from .schemas import PoseRequest
from .settings import ServerSettings
from .worker import Worker


class _Prepared(NamedTuple):
    """A view of the picture for each box, as the model takes it, and what it may be called."""

    pixels: ImageInputs
    boxes: list[Box | None]
    names: list[str]
    trie: NameTrie


class Names:
    """Answers pose requests with one model."""

    def __init__(self, model: LlavaPose, worker: Worker, settings: ServerSettings, metrics: Metrics, threads: Executor):
        self.model = model
        self.worker = worker
        self.settings = settings
        self.metrics = metrics
        self.threads = threads
        # Two threads would make two tries of the same names, whose pictures then went through the model apart.
        self._making = threading.Lock()

    async def objects(self, body: PoseRequest, http: Request) -> Response:
        """The object at each box. Raises ApiError."""
        data = await picture_bytes(body.image, self.settings, "image")
        loop = asyncio.get_running_loop()
        prepared = await loop.run_in_executor(self.threads, self._prepare, body, data)
        found = await self.worker.name(prepared.pixels, prepared.trie, http.state.deadline)
        self.metrics.poses.labels("/v1/pose").inc(len(found))
        objects = [naming_json(naming, prepared.names, box) for naming, box in zip(found, prepared.boxes, strict=True)]
        return JSONResponse({"objects": objects})

    def _prepare(self, body: PoseRequest, data: bytes) -> _Prepared:
        with mistakes_in("categories"), self._making:
            names, trie = self.model.candidates(body.categories)
        boxes: list[Box | None] = [(box[0], box[1], box[2], box[3]) for box in body.boxes or []] or [None]
        stream = checked_picture(data, self.settings.max_pixels, "image")
        with mistakes_in("boxes" if body.boxes else "image"):
            pixels = self.model.engine.pixels(self.model.views(stream, boxes))
        return _Prepared(pixels, boxes, names, trie)
