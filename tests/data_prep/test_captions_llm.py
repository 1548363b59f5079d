"""Captions by a language model, through a local server that speaks its API: checked, retried, paid for once."""

import dataclasses
import email.utils
import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep import captions, llm_endpoint
from data_prep.caption_templates import template_caption
from data_prep.llm_captions import journal_path
from data_prep.rows import encoded
from data_prep.shards import ShardWriter
from llava_pose import scene
from llava_pose.errors import UserError
from llava_pose.scene import PosedImage, PosedObject
from tests.data_prep.endpoint import Reply, completion, good, serving

ROOT = Path(__file__).parents[2]
KEY = "sk-secret-0123456789"
CAR = PosedObject(
    0, "car", (6.0, 10.0, 30.0, 40.0), 0.5, 0.1, 0.0, 5.0, 30.0, 25.0, 900.0, 1, "status_good", "dense_yes"
)
BICYCLE = dataclasses.replace(CAR, object_id=3, category="bicycle", bbox=(33.0, 20.0, 57.0, 45.0))


@pytest.fixture
def endpoint():
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def key_and_short_pauses(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr(llm_endpoint, "FIRST_PAUSE", 0.01)


def data_folder(folder, rows=3):
    folder.mkdir(parents=True)
    for split, count in (("train", rows), ("val", 1)):
        with ShardWriter(folder, split) as writer:
            for number in range(count):
                image = Image.new("RGB", (60, 50), (40 * number % 256, 0, 0))
                writer.add(encoded(PosedImage(image, f"{split}/n{number}", 60, 50, (CAR, BICYCLE), "old", ())))
    return folder


def ask(folder, endpoint, *options):
    arguments = ["--data", str(folder), "--writer", "llm", "--model", "teller-1", "--base-url", endpoint.url]
    captions.main([*arguments, *options])


def rows_of(folder):
    return [PosedImage.from_row(row) for split in ("train", "val") for row in scene.load_split(folder, split)]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def journal(folder):
    path = journal_path(folder)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


TOLD = "A car <pose> stands by a bicycle <pose> on a grey street."


def test_every_row_is_asked_once_and_written(tmp_path, endpoint, capsys):
    folder = data_folder(tmp_path / "data")
    before = {path.name: pq.read_table(path) for path in sorted(folder.iterdir())}
    ask(folder, endpoint, "--price-in", "2", "--price-out", "50")
    assert [(row.caption, row.caption_objects) for row in rows_of(folder)] == [(TOLD, (0, 3))] * 4
    for name, old in before.items():
        new = pq.read_table(folder / name)
        assert new.drop_columns(["caption", "caption_objects"]) == old.drop_columns(["caption", "caption_objects"])
    assert capsys.readouterr().out.splitlines() == [
        f"{folder}: 4 captions: 4 by teller-1, 0 by the template",
        "in this run: 4 answers, 4000 tokens in, 80 tokens out, cost 0.0120",
        "in all: 4 answers, 4000 tokens in, 80 tokens out, cost 0.0120",
        f"answers are kept in {tmp_path}/data.captions.jsonl",
    ]


def test_the_model_is_shown_the_picture_and_told_names_and_boxes(tmp_path, endpoint):
    folder = data_folder(tmp_path / "data")
    ask(folder, endpoint)
    for asked in endpoint.asked:
        assert asked.headers["authorization"] == f"Bearer {KEY}"
        assert asked.body["model"] == "teller-1" and asked.names == ["CAR1", "BICYCLE2"]
        assert "CAR1: 0.100, 0.200, 0.500, 0.800\n" in asked.body["messages"][1]["content"][0]["text"]
    stored = {row["image"]["bytes"] for path in folder.glob("*.parquet") for row in pq.read_table(path).to_pylist()}
    assert {asked.image for asked in endpoint.asked} == stored
    assert Image.open(io.BytesIO(endpoint.asked[0].image)).size == (60, 50)


def test_a_second_run_asks_nothing_and_writes_the_same_bytes(tmp_path, endpoint, capsys):
    folder = data_folder(tmp_path / "data")
    ask(folder, endpoint)
    first = contents(folder)
    capsys.readouterr()
    ask(folder, endpoint, "--price-in", "2")
    assert len(endpoint.asked) == 4 and contents(folder) == first
    assert "in this run: 0 answers, 0 tokens in, 0 tokens out, cost 0.0000" in capsys.readouterr().out


def test_data_made_anew_finds_its_answers_and_what_changed_is_asked(tmp_path, endpoint, capsys):
    ask(data_folder(tmp_path / "data"), endpoint)
    for path in (tmp_path / "data").iterdir():
        path.unlink()
    (tmp_path / "data").rmdir()
    folder = data_folder(tmp_path / "data", rows=5)
    ask(folder, endpoint)
    assert len(endpoint.asked) == 4 + 2
    assert {row.caption for row in rows_of(folder)} == {TOLD}
    ask(folder, endpoint, "--model", "teller-2")
    assert len(endpoint.asked) == 6 + 6
    assert "in all: 6 answers" in capsys.readouterr().out.splitlines()[-2]


def test_rows_alike_are_asked_once(tmp_path, endpoint):
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "val"):
        with ShardWriter(folder, split) as writer:
            for _ in range(3):
                writer.add(encoded(PosedImage(Image.new("RGB", (60, 50)), "car/n1", 60, 50, (CAR,), "", ())))
    ask(folder, endpoint, "--concurrency", "3")
    assert len(endpoint.asked) == 1
    assert {row.caption for row in rows_of(folder)} == {"A car <pose> on a grey street."}


CUT = completion("CAR1 stands by BICYCLE2 on a gre")
CUT["choices"][0]["finish_reason"] = "length"
WRONG = {
    "object left out": ("CAR1 stands there alone.", "Mention BICYCLE2, by name."),
    "invented name": ("CAR1 and BICYCLE2 stand by BUS3.", "BUS3: no object has this name."),
    "numbers leaked": ("CAR1 (0.1, 0.2) stands by BICYCLE2.", "Write no digits outside the names."),
    "odd mark": ("CAR1 <Pose stands by BICYCLE2.", "Write no marks such as <pose>."),
    "refusal": (None, "The answer is empty."),
    "cut off": (CUT, "The answer is cut off: write less."),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_asked_again_with_what_was_wrong(tmp_path, endpoint, name):
    text, complaint = WRONG[name]
    wrong = Reply(body=text) if isinstance(text, dict) else Reply(text)
    endpoint.reply = lambda asked, number: good(asked, number) if asked.tries else wrong
    folder = data_folder(tmp_path / "data", rows=1)
    ask(folder, endpoint)
    assert {row.caption for row in rows_of(folder)} == {TOLD}
    assert sorted(asked.tries for asked in endpoint.asked) == [0, 0, 1, 1]
    again = next(asked for asked in endpoint.asked if asked.tries)
    assert again.body["messages"][-1]["content"].startswith(complaint)
    assert len(journal(folder)) == 4


def test_three_wrong_answers_give_the_template_which_is_said_and_not_paid_again(tmp_path, endpoint, capsys):
    def reply(asked, number):
        return Reply("CAR1 stands there alone.") if asked.image == bad else good(asked, number)

    folder = data_folder(tmp_path / "data")
    bad = pq.read_table(folder / "train-00000-of-00001.parquet").to_pylist()[1]["image"]["bytes"]
    endpoint.reply = reply
    for _ in range(2):
        ask(folder, endpoint)
        printed = capsys.readouterr().out
        assert "4 captions: 3 by teller-1, 1 by the template\n" in printed
        line = "by the template: train/n1: 3 answers refused, the last: Mention BICYCLE2, by name."
        assert printed.splitlines()[1] == line
        assert len(endpoint.asked) == 3 + 3
    found = rows_of(folder)[1]
    assert (found.caption, found.caption_objects) == template_caption([CAR, BICYCLE], "train/n1#0#3")


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


def command(folder, endpoint_url, *options, **environment):
    arguments = [sys.executable, "data_prep/captions.py", "--data", str(folder), "--writer", "llm"]
    arguments += ["--model", "teller-1", "--base-url", endpoint_url, *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": KEY, **environment}
    return subprocess.Popen(arguments, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


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
        "import sys; from data_prep import captions, llm_endpoint; from llava_pose.errors import run_cli;"
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
    for name in ("data_prep.llm_captions", "data_prep.llm_endpoint"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match=r"--writer llm: needs the package openai: pip install 'llava-pose\[data\]'"):
        captions.main(["--data", str(data_folder(tmp_path / "data")), "--writer", "llm", "--model", "m"])


def wait_until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_command_goes_on_where_it_was_and_ends_with_the_same_bytes(tmp_path, endpoint, kind):
    endpoint.reply = lambda asked, number: dataclasses.replace(good(asked, number), delay=0.05)
    whole, cut = data_folder(tmp_path / "whole", rows=40), data_folder(tmp_path / "cut", rows=40)
    assert finished(command(whole, endpoint.url))[0] == 0
    assert len(endpoint.asked) == 41
    untouched = contents(cut)
    process = command(cut, endpoint.url, "--concurrency", "3")
    wait_until(lambda: len(endpoint.asked) >= 41 + 15)
    process.send_signal(kind)
    code, _, err = finished(process)
    if kind == signal.SIGINT:
        assert (code, err) == (130, "interrupted\n")
    assert contents(cut) == untouched
    wait_until(lambda: endpoint.under_way == 0)
    first = len(endpoint.asked) - 41
    kept = journal(cut)
    # What was under way when the run was killed is all that can be lost.
    assert first - 3 <= len(kept) <= first
    code, out, _ = finished(command(cut, endpoint.url, "--price-in", "1", "--price-out", "1"))
    assert code == 0 and len(endpoint.asked) - 41 - first == 41 - len(kept)
    assert f"in all: 41 answers, 41000 tokens in, 820 tokens out, cost {41 * 1020 / 1e6:.4f}" in out
    assert contents(cut) == contents(whole)


def test_a_torn_last_line_of_the_journal_is_asked_again(tmp_path, endpoint):
    folder = data_folder(tmp_path / "data")
    ask(folder, endpoint)
    first, path = contents(folder), journal_path(folder)
    whole = path.read_bytes()
    for cut in (1, 30):
        path.write_bytes(whole[:-cut])
        before = len(endpoint.asked)
        ask(folder, endpoint)
        assert len(endpoint.asked) == before + 1
        assert len(journal(folder)) == 4 and contents(folder) == first


@pytest.mark.parametrize("line", ["{torn", "[]", '{"key": "x", "answer": "y"}', "\udcff"])
def test_a_damaged_line_of_the_journal_is_named(tmp_path, endpoint, line):
    folder = data_folder(tmp_path / "data")
    ask(folder, endpoint)
    path = journal_path(folder)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, *lines[2:]]) + "\n", errors="surrogateescape")
    with pytest.raises(UserError, match=r"data\.captions\.jsonl:2: not a line of a journal of captions"):
        ask(folder, endpoint)
    assert len(endpoint.asked) == 4


def test_a_full_disk_ends_the_run_and_leaves_a_journal_of_whole_lines(tmp_path, endpoint, monkeypatch):
    folder = data_folder(tmp_path / "data")
    first, write = contents(folder), os.write

    def half(file, line):
        if journal_path(folder).stat().st_size > 300:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, line[:40])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(UserError, match=r"data\.captions\.jsonl: journal of captions cannot be written: No space left"):
        ask(folder, endpoint, "--concurrency", "1")
    assert contents(folder) == first and len(journal(folder)) == 1


def test_requests_keep_to_the_rate_and_to_the_concurrency(tmp_path, endpoint):
    endpoint.reply = lambda asked, number: dataclasses.replace(good(asked, number), delay=0.3)
    ask(data_folder(tmp_path / "slow", rows=7), endpoint, "--requests-per-minute", "300", "--concurrency", "8")
    came = moments(endpoint)
    assert came[-1] - came[0] > 0.8 * 7 * 60 / 300
    assert 2 <= endpoint.busiest <= 5
    endpoint.busiest = 0
    ask(data_folder(tmp_path / "fast", rows=20), endpoint, "--concurrency", "4", "--model", "teller-2")
    assert endpoint.busiest == 4


def test_images_are_read_as_they_are_needed(tmp_path, endpoint, monkeypatch):
    folder = data_folder(tmp_path / "data", rows=64 * 4)
    read, ahead = pq.ParquetFile.read_row_group, []

    def counting(self, index, columns=None):
        if columns == ["image"]:
            ahead.append(64 * (len(ahead) + 1) - len(endpoint.asked))
        return read(self, index, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counting)
    ask(folder, endpoint, "--concurrency", "4")
    assert len(endpoint.asked) == 257 and len(ahead) == 5
    assert max(ahead) <= 64 + 4


def test_progress_tokens_and_cost_are_shown_on_a_terminal(tmp_path, endpoint, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    endpoint.reply = lambda asked, number: dataclasses.replace(good(asked, number), delay=0.15)
    ask(data_folder(tmp_path / "data"), endpoint, "--concurrency", "1", "--price-out", "1000")
    last = shown.getvalue().split("\r")[-1]
    assert re.search(r"teller-1: 100%.* 4/4 .*cost=0\.08", last) and "tokens=4080" in last


def test_answers_without_token_counts_are_told(tmp_path, endpoint, capsys):
    def reply(asked, number):
        return Reply(body={"choices": [{"message": {"content": good(asked, number).text}}]})

    endpoint.reply = reply
    ask(data_folder(tmp_path / "data"), endpoint)
    assert "the endpoint gave no token counts for 4 answers" in capsys.readouterr().out


def test_a_row_without_a_picture_is_named(tmp_path, endpoint):
    folder = tmp_path / "data"
    folder.mkdir()
    with ShardWriter(folder, "train") as writer:
        row = PosedImage(Image.new("RGB", (60, 50)), "car/n1", 60, 50, (CAR,), "", ()).to_row()
        writer.add({**row, "image": {"bytes": b"no picture", "path": None}})
    with pytest.raises(UserError, match="car/n1: image: cannot be read"):
        ask(folder, endpoint)
