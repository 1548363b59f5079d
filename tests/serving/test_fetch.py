"""Pictures by URL: fetched from the public network, and from nowhere else whatever a URL, a name or a redirect says."""

from __future__ import annotations

import asyncio
import functools
import http.server
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from llava_pose import LlavaPose
from llava_pose.serving import fetch as fetching
from llava_pose.serving.errors import ApiError
from llava_pose.serving.fetch import fetch, is_public
from tests.serving.running import SAMPLES, TURN, asked, picture_part, refusal, serving

CAR = (SAMPLES / "car.jpg").read_bytes()
PUBLIC = "93.184.216.34"
Names = dict[str, list[str]]


def fetched(url: str, max_bytes: int = 100_000) -> bytes:
    return asyncio.run(fetch(url, max_bytes, "image"))


def refused(url: str, max_bytes: int = 100_000) -> str:
    with pytest.raises(ApiError) as refusal:
        fetched(url, max_bytes)
    assert (refusal.value.status_code, refusal.value.param) == (400, "image")
    return refusal.value.detail


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.1",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.127.255.255",
        "192.0.0.170",
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.7",
        "203.0.113.7",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:8.8.8.8.8",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "2001:db8::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "100::1",
        "localhost",
        "",
    ],
)
def test_no_address_of_a_machine_network_link_or_carrier_is_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are(address: str) -> None:
    assert is_public(address)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """What names resolve to; each look-up takes the next of a name's answers away, if it has more than one."""
    known: Names = {}

    async def look_up(_: Any, host: str, port: int, **__: Any) -> list[Any]:
        try:
            ipaddress.ip_address(host)
            answer = host
        except ValueError:
            answers = known[host]
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in answer.split()]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", look_up)
    return known


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[list[httpx.Request], dict[str, httpx.Response]]]:
    """The requests that would have gone out, and what is answered to each by host and path."""
    requests: list[httpx.Request] = []
    answers: dict[str, httpx.Response] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return answers[f"{request.headers['host']}{request.url.path}"]

    client = functools.partial(httpx.AsyncClient, transport=httpx.MockTransport(answer))
    monkeypatch.setattr(fetching.httpx, "AsyncClient", client)
    yield requests, answers


def moved(to: str) -> httpx.Response:
    return httpx.Response(302, headers={"Location": to})


def found(content: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(200, headers=headers, stream=httpx.ByteStream(content))


def test_the_connection_goes_to_the_address_that_was_checked_under_the_urls_own_name(names: Names, sent: Any) -> None:
    requests, answers = sent
    # The second time the name would lead into this machine.
    names["pictures.example"] = [PUBLIC, "127.0.0.1"]
    answers["pictures.example/car.jpg"] = found(CAR)
    assert fetched("https://pictures.example/car.jpg?size=2#top") == CAR
    [request] = requests
    assert str(request.url) == f"https://{PUBLIC}/car.jpg?size=2"
    assert request.headers["host"] == "pictures.example"
    assert request.extensions["sni_hostname"] == "pictures.example"
    assert "cookie" not in request.headers and request.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "10.0.0.5", "::1", "::ffff:10.0.0.1", f"{PUBLIC} 192.168.0.1"]
)
def test_a_name_that_has_any_address_that_is_not_public_is_not_asked(names: Names, sent: Any, address: str) -> None:
    names["pictures.example"] = [address]
    assert refused("http://pictures.example/") == "image: its host is not on the public network"
    assert sent[0] == []


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1:80/",
        "http://0/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://localhost/",
        "http://pictures.example:8080/",
        "http://pictures.example:22/",
        "https://pictures.example:80/",
        "http://me:secret@pictures.example/",
        "http://",
        "http:///etc/passwd",
        "http://pictures.example\\@127.0.0.1/",
        "http://[1::2::3]/",
        "http://pictures.example:99999/",
    ],
)
def test_no_form_of_an_address_or_a_port_leads_elsewhere(names: Names, sent: Any, url: str) -> None:
    names["pictures.example"] = [PUBLIC]
    # What a resolver makes of such numbers.
    names.update({host: ["127.0.0.1"] for host in ("0", "2130706433", "0x7f.1", "localhost")})
    refused(url)
    assert sent[0] == []


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1/secret",
        "http://inside.example/",
        "file:///etc/passwd",
        "ftp://pictures.example/",
        "//10.0.0.1/",
        "http://pictures.example:6379/",
        "data:image/png;base64,aGVsbG8=",
        "",
    ],
)
def test_each_redirect_is_checked_like_the_first_url(names: Names, sent: Any, target: str) -> None:
    requests, answers = sent
    names.update({"pictures.example": [PUBLIC], "inside.example": ["192.168.0.1"]})
    answers["pictures.example/a"] = moved(target)
    answers["pictures.example/"] = moved("/a")
    refused("http://pictures.example/a")
    assert {request.headers["host"] for request in requests} == {"pictures.example"}


def test_redirects_within_the_public_network_are_followed_so_often(names: Names, sent: Any) -> None:
    requests, answers = sent
    names.update({"a.example": [PUBLIC], "b.example": ["8.8.8.8"]})
    answers.update({"a.example/1": moved("https://b.example/2"), "b.example/2": found(CAR)})
    assert fetched("http://a.example/1") == CAR
    assert [str(request.url) for request in requests] == [f"http://{PUBLIC}/1", "https://8.8.8.8/2"]
    answers["a.example/round"] = moved("/round")
    assert refused("http://a.example/round") == "image: more than 3 redirects"
    assert len(requests) == 2 + 4


def test_what_is_too_large_packed_or_no_success_is_refused(names: Names, sent: Any) -> None:
    _, answers = sent
    names["a.example"] = [PUBLIC]
    answers["a.example/large"] = found(b"x" * 2_000)
    answers["a.example/packed"] = httpx.Response(
        200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"")
    )
    answers["a.example/missing"] = httpx.Response(404)
    assert len(fetched("http://a.example/large", max_bytes=2_000)) == 2_000
    answers["a.example/large"] = found(b"x" * 2_000)
    assert refused("http://a.example/large", max_bytes=1_999) == "image: more than the 1,999 bytes allowed"
    assert "content encoding" in refused("http://a.example/packed")
    assert refused("http://a.example/missing") == "image: answered with status 404"


class _Pictures(http.server.BaseHTTPRequestHandler):
    hosts: list[str] = []

    def do_GET(self) -> None:
        self.hosts.append(self.headers["Host"])
        self.send_response(200)
        self.end_headers()
        if self.path == "/slow":
            threading.Event().wait(1)
        else:
            self.wfile.write(CAR)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """A picture server of this machine, which the tests declare to be public; the Host headers it has seen."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Pictures) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        _Pictures.hosts = []
        monkeypatch.setitem(fetching.PORTS, "http", made.server_port)
        yield lambda: _Pictures.hosts
        made.shutdown()
        thread.join()


def test_a_picture_by_url_is_answered_when_the_server_allows_it(
    inside: Callable[[], list[str]], names: Names, model: LlavaPose, monkeypatch: pytest.MonkeyPatch
) -> None:
    names["pictures.example"] = ["127.0.0.1"]
    url = "http://pictures.example/car.jpg"
    with serving(model, allow_http_images=True) as served:
        assert refusal(served.post("/v1/pose", {"image": url}))[2] == "image: its host is not on the public network"
        assert inside() == []
        monkeypatch.setattr(fetching, "is_public", lambda address: address == "127.0.0.1")
        assert served.post("/v1/pose", {"image": url}).json()["objects"][0]["category"] == "car"
        body = {"messages": asked(TURN, picture_part(url))}
        assert served.post("/v1/chat/completions", body).status_code == 200
        assert inside() == ["pictures.example"] * 2


def test_a_host_that_takes_its_time_is_not_waited_for(
    inside: Callable[[], list[str]], names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    names["pictures.example"] = ["127.0.0.1"]
    monkeypatch.setattr(fetching, "is_public", lambda address: address == "127.0.0.1")
    monkeypatch.setattr(fetching, "SECONDS", 0.3)
    assert refused("http://pictures.example/slow") == "image: not there within 0.3 seconds"
