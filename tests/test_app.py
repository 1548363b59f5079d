"""How the web page is served, without a browser: its files and no others, under a policy that lets nothing else in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from llava_pose import app as page
from llava_pose.overlay import AXES
from llava_pose.taxonomy import categories, spoken_name

WEB = Path(page.__file__).parent / "assets" / "web"


@pytest.fixture(scope="module")
def client():
    served = FastAPI()
    page.add_page(served)
    return TestClient(served)


def test_every_file_the_page_names_is_there_under_a_strict_policy(client):
    index = client.get("/")
    assert index.status_code == 200 and index.headers["content-type"].startswith("text/html")
    named = re.findall(r'(?:src|href)="((?:web|samples)/[^"]+)"', index.text)
    modules = [f"web/{file.name}" for file in WEB.iterdir()]
    examples = [example["picture"] for example in client.get("/page.json").json()["examples"]]
    assert set(named) <= set(modules) and len(examples) == 4
    for address in ["", "page.json", *modules, *examples]:
        answer = client.get(f"/{address}")
        assert answer.status_code == 200, address
        policy = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'" and policy["script-src"] == policy["connect-src"] == "'self'"
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_has_no_inline_script_or_style_and_names_no_other_host():
    for file in WEB.iterdir():
        text = file.read_text(encoding="utf-8")
        hosts = set(re.findall(r"https?://[^\s\"')]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not hosts, file
        assert len(text.splitlines()) < 400, file
        for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert forbidden not in text, file
    index = (WEB / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?![^>]*src=)", index)


@pytest.mark.parametrize(
    "path", ["/web/../app.py", "/web/%2e%2e/app.py", "/web/..%2f..%2fapp.py", "/samples/%2e%2e/taxonomy.json", "/web/"]
)
def test_no_other_file_can_be_read(client, path):
    assert client.get(path).status_code == 404


def test_the_page_is_told_what_the_library_knows(client):
    told = client.get("/page.json").json()
    assert {axis["name"]: (tuple(axis["direction"]), tuple(axis["color"])) for axis in told["axes"]} == AXES
    assert told["spoken_names"] == {name: spoken_name(name) for name in categories()}
