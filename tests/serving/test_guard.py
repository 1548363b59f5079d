"""Who may ask: keys, host names, other sites' pages; and what every answer carries."""

from __future__ import annotations

import hmac
import json
import logging
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import openai
import pytest

from llava_pose import LlavaPose
from tests.serving.running import CAR, Served, asked, refusal, serving, until

KEY = "a-key-that-nobody-guesses"
BEARER = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def locked(model: LlavaPose) -> Iterator[Served]:
    with serving(model, api_key=KEY) as served:
        yield served


# The key


@pytest.mark.parametrize("given", [None, "Bearer wrong", f"Bearer {KEY}x", f"Basic {KEY}", KEY, "Bearer", "Bearer é"])
@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/models"), ("POST", "/v1/pose"), ("GET", "/metrics")])
def test_a_server_with_a_key_answers_nobody_without_it(locked: Served, given: str, method: str, path: str) -> None:
    headers = {} if given is None else {"Authorization": given.encode()}
    with locked.client() as client:
        response = client.request(method, path, headers=headers, json={"image": CAR} if method == "POST" else None)
    status, _, message = refusal(response)
    assert (status, response.headers["www-authenticate"]) == (401, "Bearer")
    assert KEY not in message


def test_the_right_key_opens_it_for_the_openai_client_too(locked: Served) -> None:
    assert locked.get("/metrics", headers=BEARER).status_code == 200
    assert locked.get("/v1/models", headers={"Authorization": f"bearer  {KEY}"}).status_code == 200
    with openai.OpenAI(base_url=f"{locked.url}/v1", api_key=KEY, max_retries=0) as client:
        assert len(list(client.models.list())) == 1
    with (
        openai.OpenAI(base_url=f"{locked.url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="a key is needed"),
    ):
        client.models.list()


def test_the_page_and_health_need_no_key(locked: Served) -> None:
    assert [locked.get(path).status_code for path in ("/", "/health", "/docs", "/openapi.json")] == [200] * 4


def test_keys_are_compared_in_constant_time(locked: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    compared, compare = [], hmac.compare_digest

    def recorded(given: bytes, key: bytes) -> bool:
        compared.append((given, key))
        return compare(given, key)

    monkeypatch.setattr(hmac, "compare_digest", recorded)
    assert locked.get("/v1/models", headers={"Authorization": "Bearer b"}).status_code == 401
    assert compared == [(b"b", KEY.encode())]


# Names and other sites


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:7860", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("192.168.0.7:7860", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example:7860", 403),
        ("evil.example@127.0.0.1.x", 403),
        ("", 403),
        ("[oops", 403),
    ],
)
def test_a_name_that_somebody_else_points_here_is_not_served(server: Served, host: str, status: int) -> None:
    assert server.get("/health", headers={"Host": host}).status_code == status


def test_a_server_with_a_key_may_have_any_name_and_one_without_those_it_is_given(
    locked: Served, model: LlavaPose
) -> None:
    assert locked.get("/health", headers={"Host": "pose.example"}).status_code == 200
    with serving(model, allowed_hosts=("Pose.example",)) as named:
        assert named.get("/health", headers={"Host": "pose.example:80"}).status_code == 200
        assert named.get("/health", headers={"Host": "pose.example.evil"}).status_code == 403
        # Behind a proxy that says another Host than the browser.
        assert named.get("/health", headers={"Origin": "https://pose.example"}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "", "file://", "http://["]
)
def test_a_page_of_another_site_is_refused_whatever_it_asks(server: Served, origin: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        with server.client() as client:
            response = client.request(method, "/v1/pose", headers={"Origin": origin}, json={"image": CAR})
        assert response.status_code == 403
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_the_own_page_may_ask(server: Served) -> None:
    assert server.post("/v1/pose", {"image": CAR}, headers={"Origin": server.url}).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data", "application/x-www-form-urlencoded", None])
def test_what_other_sites_forms_can_send_is_not_read_as_json(server: Served, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    with server.client() as client:
        response = client.post("/v1/pose", content=json.dumps({"image": CAR}), headers=headers)
    assert refusal(response)[0] == 415


# What is answered


def test_every_answer_says_that_nothing_in_it_is_to_be_run_framed_or_kept(server: Served) -> None:
    for path in ("/v1/models", "/health", "/nowhere", "/metrics"):
        headers = server.get(path).headers
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")
        assert "server" not in headers


def test_ids_are_the_servers_own_and_differ(server: Served) -> None:
    first, second = (server.get("/health", headers={"X-Request-Id": "mine"}).headers["x-request-id"] for _ in range(2))
    assert first != second and "mine" not in (first, second)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/pose", 405), ("POST", "/health", 405), ("GET", "/x", 404)]
)
def test_what_is_not_there_is_told_in_openais_form(server: Served, method: str, path: str, status: int) -> None:
    with server.client() as client:
        response = client.request(method, path, json={} if method == "POST" else None)
    assert refusal(response)[0] == status
    assert status == 404 or response.headers["allow"]


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd",
        "/web/../app.py",
        "/web/..%2fapp.py",
        "/web/%2e%2e/app.py",
        "/web/....//app.py",
        "/samples/..%2f..%2fserver.py",
        "/samples/..%5c..%5cserver.py",
        "//etc/passwd",
        "/web//etc/passwd",
        "/docs/../server.py",
        "/docs/%2e%2e%2fserver.py",
        "/%00",
        "/web/%00",
    ],
)
def test_no_path_leads_to_a_file_of_the_server(server: Served, path: str) -> None:
    # By hand: clients put such paths in order before they send them.
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), 60) as connection:
        head = f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.split(b" ", 2)[1] in (b"404", b"400", b"307")
    assert b"import" not in answer and b"root:" not in answer


def test_a_line_in_the_log_tells_method_path_status_and_id_and_nothing_that_was_sent(
    locked: Served, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "confidential-question"
    with caplog.at_level(logging.DEBUG):
        path, body = "/v1/chat/completions?token=query-secret", {"messages": asked(secret), "stop": 7}
        responses = [
            locked.post(path, body, headers=BEARER),
            locked.get("/a%0Ab?c=query-secret", headers={**BEARER, "X-Secret": "header-secret"}),
        ]
        ids = tuple(response.headers["x-request-id"] for response in responses)

        def own_lines() -> list[str]:
            lines = [record.getMessage() for record in caplog.records if record.name == "llava_pose.server"]
            return [line for line in lines if line.endswith(ids)]  # the test before may still be told of

        until(lambda: len(own_lines()) == 2)  # a line is written when its response has gone
    own = own_lines()
    assert [line.split()[:3] for line in own] == [["POST", "/v1/chat/completions", "400"], ["GET", "/a\\nb", "404"]]
    assert own[0].endswith(ids[0]) and own[1].endswith(ids[1])
    everything = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("http"))
    for hidden in (secret, KEY, "query-secret", "header-secret", CAR[60:100], "Bearer"):
        assert hidden not in everything
