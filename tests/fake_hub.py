"""A hub on this machine, as much of one as uploading a folder and opening it again takes: no accounts, one revision."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml


class FakeHub(ThreadingHTTPServer):
    """``files[repository][path]`` are the bytes of every file; ``url`` is what HF_ENDPOINT is set to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.stored: dict[str, bytes] = {}  # large files, by their SHA-256, before a commit names them
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def revision(self, repository: str) -> str:
        """A commit's name, another whenever a file is."""
        files = self.files[repository]
        return hashlib.sha1(repr(sorted((path, blob_id(data)) for path, data in files.items())).encode()).hexdigest()


def blob_id(data: bytes) -> str:
    """Git's name of a file's contents."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A running hub, empty."""
    hub = FakeHub()
    thread = threading.Thread(target=hub.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        thread.join()
        hub.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.server.files.setdefault(name, {})
            kind = "" if asked.get("type", "model") == "model" else f"{asked['type']}s/"
            return self._answer({"url": f"{self.server.url}/{kind}{name}"})
        if path == "/api/validate-yaml":
            asked = json.loads(body)
            metadata = yaml.safe_load(asked["content"].split("---")[1])
            needed = "configs" if asked["repoType"] == "dataset" else "pipeline_tag"
            right = isinstance(metadata, dict) and needed in metadata
            errors = [] if right else [{"message": f"no {needed}"}]
            return self._answer({"errors": errors, "warnings": []}, 400 if errors else 200)
        if match := re.fullmatch(r"/api/(?:datasets|models)/(\w+/\w+)/preupload/main", path):
            return self._answer({"files": [_upload_mode(file["path"]) for file in json.loads(body)["files"]]})
        if re.fullmatch(r"(?:/datasets)?/\w+/\w+\.git/info/lfs/objects/batch", path):
            objects = json.loads(body)["objects"]
            for one in objects:
                one["actions"] = {"upload": {"href": f"{self.server.url}/stored/{one['oid']}"}}
            return self._answer({"transfer": "basic", "objects": objects})
        if match := re.fullmatch(r"/api/(?:datasets|models)/(\w+/\w+)/commit/main", path):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.files[match[1]][line["value"]["path"]] = content
                elif line["key"] == "lfsFile":
                    self.server.files[match[1]][line["value"]["path"]] = self.server.stored[line["value"]["oid"]]
            revision = self.server.revision(match[1])
            url = f"{self.server.url}/datasets/{match[1]}/commit/{revision}"
            return self._answer({"commitUrl": url, "commitOid": revision})
        if match := re.fullmatch(r"/api/(?:datasets|models)/(\w+/\w+)/paths-info/\w+", path):
            files, asked = self.server.files[match[1]], json.loads(body)["paths"]
            return self._answer([_entry(name, files[name]) for name in asked if name in files])
        return self._answer({"error": path}, 404)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/api/(?:datasets|models)/(\w+/\w+)(/revision/\w+)?", path):
            if match[1] not in self.server.files:
                return self._answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            names = [{"rfilename": name} for name in sorted(self.server.files[match[1]])]
            info = {"id": match[1], "sha": self.server.revision(match[1]), "siblings": names}
            return self._answer({**info, "private": False, "downloads": 0, "likes": 0, "tags": []})
        if match := re.fullmatch(r"/api/(?:datasets|models)/(\w+/\w+)/tree/\w+/?(.*)", path):
            return self._tree(self.server.files[match[1]], f"{match[2]}/" if match[2] else "")
        if match := re.fullmatch(r"(?:/datasets)?/(\w+/\w+)/resolve/\w+/(.+)", path):
            data = self.server.files.get(match[1], {}).get(match[2])
            if data is None:
                return self._answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            revision = {"X-Repo-Commit": self.server.revision(match[1]), "ETag": f'"{blob_id(data)}"'}
            return self._answer(data, 200, revision)
        return self._answer({"error": path}, 404)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.stored[self.path.removeprefix("/stored/")] = data
        self._answer(b"")

    def _tree(self, files: dict[str, bytes], folder: str) -> None:
        inside = {name: data for name, data in sorted(files.items()) if name.startswith(folder)}
        if folder and not inside:
            return self._answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        entries = [_entry(name, data) for name, data in inside.items()]
        if "recursive=true" not in self.path:
            entries = [entry for entry in entries if "/" not in entry["path"].removeprefix(folder)]
            below = {name.removeprefix(folder).split("/")[0] for name in inside if "/" in name.removeprefix(folder)}
            entries += [{"type": "directory", "path": folder + name, "oid": "0" * 40, "size": 0} for name in below]
        return self._answer(entries)

    def _answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Type", "application/octet-stream" if content is data else "application/json")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def _upload_mode(path: str) -> dict[str, Any]:
    large = path.endswith((".parquet", ".safetensors"))
    return {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}


def _entry(path: str, data: bytes) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": len(data), "oid": blob_id(data)}
