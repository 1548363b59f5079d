"""The web page of ``llava-pose serve``: plain HTML, CSS and JavaScript modules, which ask the HTTP API beside them.

Nothing here knows of a model: the page draws what the API answers. What it must know beforehand, such as the colours of
the axes, it is told by Python, so that page and library cannot disagree.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.responses import Response
from starlette.types import Scope

from . import __version__, taxonomy
from .overlay import AXES, AXIS_CAMERA_DISTANCE, BOX_COLOR, SHARE_OF_BOX, SHARE_OF_PART

ASSETS = Path(__file__).parent / "assets"

EXAMPLES = {
    "car": "How far must the car turn to face me?",
    "chair": "Which way is the chair facing?",
    "motorbike": "From which side do we see the motorbike?",
    "teapot": "What is this?",
}
"""The sample pictures that the page offers, each with a question to try on it."""

HEADERS = {
    # Only files of this server run, style or show anything; blob: and data: are pictures that the visitor opened.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    # A browser asks each time whether its copy is still good, so that an upgrade is seen at once.
    "Cache-Control": "no-cache",
}


class _Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


def add_page(app: FastAPI) -> None:
    """Serve the page at ``/``, with its files under ``/web/``, the sample pictures under ``/samples/``, and
    ``/page.json``. None of them needs a key, or appears in the API's description."""
    app.mount("/web", _Files(directory=ASSETS / "web"))
    app.mount("/samples", _Files(directory=ASSETS / "samples"))

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(ASSETS / "web" / "index.html", headers=HEADERS)

    @app.get("/page.json", include_in_schema=False)
    async def settings() -> JSONResponse:
        return JSONResponse(page_settings(), headers=HEADERS)


def page_settings() -> dict[str, Any]:
    """What the page is told: how axes and boxes are drawn (see ``overlay``), examples, spoken names of categories."""
    return {
        "version": __version__,
        "axes": [{"name": name, "direction": direction, "color": color} for name, (direction, color) in AXES.items()],
        "axis_camera_distance": AXIS_CAMERA_DISTANCE,
        "share_of_box": SHARE_OF_BOX,
        "share_of_part": SHARE_OF_PART,
        "box_color": BOX_COLOR,
        "examples": [
            {"name": name, "picture": f"samples/{name}.jpg", "question": question}
            for name, question in EXAMPLES.items()
        ],
        "spoken_names": {category: taxonomy.spoken_name(category) for category in taxonomy.categories()},
    }
