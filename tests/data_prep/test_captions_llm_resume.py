"""Nothing is paid for twice: second runs, data made anew, kills and damaged journals."""

import dataclasses
import errno
import os
import signal
import time

import pytest
from PIL import Image

from data_prep.captioning.llm_captions import journal_path
from data_prep.conversion.rows import encoded
from data_prep.conversion.shards import ShardWriter
from llava_pose.errors import UserError
from llava_pose.scene import PosedImage
from tests.data_prep.captioned import CAR, TOLD, ask, command, contents, data_folder, finished, journal, rows_of
from tests.data_prep.endpoint import good


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
