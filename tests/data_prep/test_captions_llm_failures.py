"""An endpoint that fails: what may pass is asked again, what cannot ends the run in one line, nothing is lost."""

import dataclasses
import email.utils
import os
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest

from data_prep import captions
from data_prep.captioning import llm_endpoint
from data_prep.captioning.llm_captions import journal_path
from llava_pose.errors import UserError
from tests.data_prep.captioned import (
    KEY,
    ROOT,
    TOLD,
    ask,
    command,
    contents,
    data_folder,
    finished,
    journal,
    rows_of,
)
from tests.data_prep.endpoint import Reply, completion, good, serving


def moments(endpoint):
    return [asked.came for asked in endpoint.asked]


@pytest.mark.parametrize("date", [False, True])
def test_too_many_requests_pause_all_as_long_as_the_endpoint_asks(tmp_path, endpoint, date):
    def reply(asked, number):
        if number:
            return good(asked, number)
        # A date has whole seconds: two ahead is more than one away.
        wait = email.utils.formatdate(time.time() + 2, usegmt=True) if date else "1"
        return Reply(status=429, body={"error": {"message": "slow down"}}, headers={"Retry-After": wait})

    endpoint.reply = reply
    folder = data_folder(tmp_path / "data")
    ask(folder, endpoint, "--concurrency", "1")
    assert {row.caption for row in rows_of(folder)} == {TOLD}
    first, second = moments(endpoint)[:2]
    assert (0.9 if date else 0.99) < second - first < 4 and len(endpoint.asked) == 5


def test_a_tight_limit_is_waited_for_however_often_it_says_no(tmp_path, endpoint):
    free_at = [0.0]

    def reply(asked, number):
        with endpoint.lock:
            if time.monotonic() < free_at[0]:
                return Reply(status=429, body={"error": {"message": "one at a time"}}, headers={"Retry-After": "0.05"})
            free_at[0] = time.monotonic() + 0.1
        return good(asked, number)

    endpoint.reply = reply
    folder = data_folder(tmp_path / "data", rows=15)
    ask(folder, endpoint, "--concurrency", "16")
    assert {row.caption for row in rows_of(folder)} == {TOLD}
    assert len(endpoint.asked) > 2 * 16


def test_an_endpoint_that_asks_for_an_hour_ends_the_run(tmp_path, endpoint):
    busy = Reply(status=429, body={"error": {"message": "daily limit"}}, headers={"Retry-After": "3600"})
    endpoint.reply = lambda asked, number: busy if number == 2 else good(asked, number)
    folder = data_folder(tmp_path / "data")
    first = contents(folder)
    with pytest.raises(UserError, match="asks to wait 3600 seconds; run the same command again then"):
        ask(folder, endpoint, "--concurrency", "1")
    assert contents(folder) == first and len(journal(folder)) == 2


PASSING = {
    "server error": Reply(status=500, body={"error": {"message": "oops"}}),
    "overloaded": Reply(status=503, body=b"<html>busy</html>", headers={"Content-Type": "text/html"}),
    "not JSON": Reply(body=b"{'choices': "),
    "no text at all": Reply(body=b""),
    "no choices": Reply(body={**completion("x"), "choices": []}),
    "choices null": Reply(body={**completion("x"), "choices": None}),
    "a list": Reply(body=[1]),
    "content a list": Reply(body={"choices": [{"message": {"content": [{"type": "text"}]}}]}),
    "too late": Reply("CAR1 stands by BICYCLE2.", delay=0.8),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_may_pass_is_asked_again(tmp_path, endpoint, name):
    endpoint.reply = lambda asked, number: good(asked, number) if number else PASSING[name]
    folder = data_folder(tmp_path / "data", rows=1)
    ask(folder, endpoint, "--concurrency", "1", "--timeout", "0.4")
    assert {row.caption for row in rows_of(folder)} == {TOLD}
    assert len(endpoint.asked) == 3 and len(journal(folder)) == 2


def test_without_an_answer_the_template_writes_and_the_next_run_asks_again(tmp_path, endpoint, capsys):
    def reply(asked, number):
        return Reply(status=500, body={"error": {"message": "oops"}}) if asked.image == bad else good(asked, number)

    folder = data_folder(tmp_path / "data")
    bad = pq.read_table(folder / "train-00000-of-00001.parquet").to_pylist()[1]["image"]["bytes"]
    endpoint.reply = reply
    ask(folder, endpoint)
    assert "by the template: train/n1: status 500: oops\n" in capsys.readouterr().out
    assert len(endpoint.asked) == 3 + llm_endpoint.SENDS
    endpoint.reply = good
    ask(folder, endpoint)
    assert len(endpoint.asked) == 3 + llm_endpoint.SENDS + 1
    assert {row.caption for row in rows_of(folder)} == {TOLD}


def test_a_picture_that_the_endpoint_refuses_is_told_of_by_the_template(tmp_path, endpoint, capsys):
    def reply(asked, number):
        return Reply(status=400, body={"error": {"message": f"bad {KEY}"}}) if number == 2 else good(asked, number)

    endpoint.reply = reply
    ask(data_folder(tmp_path / "data"), endpoint, "--concurrency", "1")
    assert "by the template: train/n2: refused (status 400): bad (key)\n" in capsys.readouterr().out
    assert len(endpoint.asked) == 4


ENDING = {
    "wrong key": (
        401,
        {"message": f"Incorrect API key provided: {KEY}"},
        r"refuses the key in OPENAI_API_KEY \(status 401\)",
    ),
    "not allowed": (403, {"message": "no access"}, r"refuses the request \(status 403\): no access"),
    "no such model": (
        404,
        {"message": f"no teller-1 for {KEY}"},
        r"model 'teller-1': .*404\): no teller-1 for \(key\)",
    ),
    "bad request from the start": (400, {"message": "images? no"}, r"refuses the request \(status 400\): images\? no"),
    "quota": (429, {"message": "pay first", "code": "insufficient_quota"}, "the account's quota is spent: pay first"),
}


@pytest.mark.parametrize("name", ENDING)
def test_what_cannot_pass_ends_the_run_at_once_and_changes_nothing(tmp_path, endpoint, name):
    status, error, message = ENDING[name]
    endpoint.reply = lambda asked, number: Reply(status=status, body={"error": error})
    folder = data_folder(tmp_path / "data", rows=30)
    first = contents(folder)
    with pytest.raises(UserError, match=message) as caught:
        ask(folder, endpoint, "--concurrency", "2")
    assert KEY not in str(caught.value) and endpoint.url in str(caught.value)
    assert len(endpoint.asked) <= 2 and contents(folder) == first and not journal(folder)


def test_an_end_in_the_middle_loses_no_answer(tmp_path, endpoint):
    def reply(asked, number):
        if number == 4:
            return Reply(status=401, body={"error": {"message": "key withdrawn"}})
        return dataclasses.replace(good(asked, number), delay=0.3 if number < 4 else 0.0)

    endpoint.reply = reply
    folder = data_folder(tmp_path / "data", rows=30)
    with pytest.raises(UserError, match="refuses the key"):
        ask(folder, endpoint, "--concurrency", "5")
    assert len(journal(folder)) == 4
    endpoint.reply = good
    before = len(endpoint.asked)
    ask(folder, endpoint)
    assert len(endpoint.asked) - before == 31 - 4


def test_silence_to_everything_ends_the_run(tmp_path, endpoint, monkeypatch):
    monkeypatch.setattr(llm_endpoint, "SILENT_IN_A_ROW", 3)
    endpoint.reply = lambda asked, number: Reply(status=502, body=b"")
    folder = data_folder(tmp_path / "data", rows=30)
    with pytest.raises(UserError, match="no answer to 3 questions in a row, last: status 502"):
        ask(folder, endpoint, "--concurrency", "1")
    assert len(endpoint.asked) == 3 * llm_endpoint.SENDS


def test_the_command_ends_with_one_line_and_without_the_key(tmp_path, endpoint):
    endpoint.reply = lambda asked, number: Reply(status=401, body={"error": {"message": f"wrong key {KEY}"}})
    folder = data_folder(tmp_path / "data")
    code, out, err = finished(command(folder, endpoint.url))
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert err == f"error: {endpoint.url}: model 'teller-1': refuses the key in OPENAI_API_KEY (status 401)\n"
    code, out, err = finished(command(folder, endpoint.url, OPENAI_API_KEY=""))
    assert (code, out) == (2, "")
    assert err == f"error: {endpoint.url}: model 'teller-1': wants a key (status 401): set OPENAI_API_KEY\n"


def test_the_command_says_that_nobody_is_there(tmp_path):
    with serving() as gone:
        pass
    folder = data_folder(tmp_path / "data")
    first = contents(folder)
    script = (
        "import sys; from data_prep import captions; from data_prep.captioning import llm_endpoint; "
        "from llava_pose.errors import run_cli;"
        "llm_endpoint.FIRST_PAUSE = 0.01; run_cli(captions.main)"
    )
    arguments = ["--data", str(folder), "--writer", "llm", "--model", "teller-1", "--base-url", gone.url]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": KEY}
    run = subprocess.run([sys.executable, "-c", script, *arguments], cwd=ROOT, env=env, capture_output=True, text=True)
    assert run.returncode == 2 and run.stderr.count("\n") == 1
    assert run.stderr.startswith(f"error: {gone.url}: model 'teller-1': cannot be reached: Connection error.")
    assert contents(folder) == first


def test_an_endpoint_that_wants_no_key_gets_none_and_the_default_one_is_not_asked_without(
    tmp_path, endpoint, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "")
    folder = data_folder(tmp_path / "data")
    ask(folder, endpoint)
    assert {row.caption for row in rows_of(folder)} == {TOLD}
    with pytest.raises(UserError, match="OPENAI_API_KEY: not set"):
        captions.main(["--data", str(folder), "--writer", "llm", "--model", "teller-1"])


def test_the_key_is_nowhere_but_in_the_requests(tmp_path, endpoint, capsys):
    folder = data_folder(tmp_path / "data")
    ask(folder, endpoint)
    told = "".join(capsys.readouterr())
    assert endpoint.asked[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in told and KEY.encode() not in journal_path(folder).read_bytes() + b"".join(
        contents(folder).values()
    )


def test_without_the_client_the_writer_says_what_to_install(tmp_path, monkeypatch):
    for name in ("data_prep.captioning.llm_captions", "data_prep.captioning.llm_endpoint"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match=r"--writer llm: needs the package openai: pip install 'llava-pose\[data\]'"):
        captions.main(["--data", str(data_folder(tmp_path / "data")), "--writer", "llm", "--model", "m"])
