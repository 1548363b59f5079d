"""The API's description as a page (``/docs``), from files that are installed: nothing is loaded from elsewhere."""

from __future__ import annotations

from importlib.resources import files

from fastapi import FastAPI
from starlette.responses import Response

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>LLaVA-pose API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="api"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</html>
"""
START = 'SwaggerUIBundle({url: "openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null});\n'

HEADERS = {
    # Swagger UI sets styles on its elements; what it runs comes from here alone.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
}


def add_docs(app: FastAPI) -> None:
    """Serve the page about the API at ``/docs``."""
    swagger = files("fastapi_swagger") / "resources"
    parts = {
        "": (lambda: PAGE.encode(), "text/html"),
        "/start.js": (lambda: START.encode(), "text/javascript"),
        "/swagger-ui-bundle.js": ((swagger / "swagger-ui-bundle.js").read_bytes, "text/javascript"),
        "/swagger-ui.css": ((swagger / "swagger-ui.css").read_bytes, "text/css"),
    }
    for path, (read, kind) in parts.items():

        def serve(read=read, kind=kind) -> Response:  # type: ignore[no-untyped-def]
            return Response(read(), media_type=kind, headers=HEADERS)

        app.add_api_route(f"/docs{path}", serve, include_in_schema=False)
