"""Captions by a language model, through a local server that speaks its API: asked once, checked, written."""

import dataclasses
import io
import re
import sys

import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep.captioning.caption_templates import template_caption
from data_prep.conversion.shards import ShardWriter
from llava_pose.errors import UserError
from llava_pose.scene import PosedImage
from tests.data_prep.captioned import BICYCLE, CAR, KEY, TOLD, ask, data_folder, journal, rows_of
from tests.data_prep.endpoint import Reply, completion, good


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


def test_requests_keep_to_the_rate_and_to_the_concurrency(tmp_path, endpoint):
    endpoint.reply = lambda asked, number: dataclasses.replace(good(asked, number), delay=0.3)
    ask(data_folder(tmp_path / "slow", rows=7), endpoint, "--requests-per-minute", "300", "--concurrency", "8")
    came = [asked.came for asked in endpoint.asked]
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
