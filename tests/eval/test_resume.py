"""Any number of processes, killed anywhere and started again, leave the same files."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from eval import benchmark, work
from eval.journal import Journal, read_journals
from llava_pose.errors import UserError
from tests.eval.conftest import Evaluate, write_crops

ROOT = Path(__file__).parents[2]

DYING = """
import os, signal, sys
from eval import benchmark, journal
from llava_pose.errors import run_cli

def add(self, part, lines, whole=journal.Journal.add, done=[]):
    done.append(part)
    if len(done) > 1:
        os.write(self._file, b'{"part": 8, "lines": [{"image_id": "car/n0')
        os.kill(os.getpid(), signal.SIGKILL)
    whole(self, part, lines)

journal.Journal.add = add
run_cli(benchmark.main)
"""


def free_port() -> str:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return str(opened.getsockname()[1])


def launch(processes: int, script: Path, *options: object) -> subprocess.CompletedProcess[str]:
    together = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--master_port", free_port()]
    command = [sys.executable, *(together if processes > 1 else []), script, *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*map(str, command)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    return done


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_any_number_of_processes_leaves_the_same_files(
    crops: Path, evaluate: Evaluate, tiny_model_dir: Path, tmp_path: Path, processes: int
) -> None:
    alone, together = evaluate(crops, "--batch-size", "2"), tmp_path / "together"
    options = ("--model", tiny_model_dir, "--data", crops, "--out", together, "--batch-size", "2")
    done = launch(processes, ROOT / "eval" / "benchmark.py", *options)
    assert done.returncode == 0, done.stderr
    assert (together / "predictions.jsonl").read_bytes() == (alone / "predictions.jsonl").read_bytes()
    assert (together / "metrics.json").read_bytes() == (alone / "metrics.json").read_bytes()


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_with_another_number_of_processes_to_the_same_bytes(
    crops: Path, evaluate: Evaluate, tiny_model_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture, processes: int
) -> None:
    whole = evaluate(crops, "--batch-size", "1")
    script = tmp_path / "dying.py"
    script.write_text(DYING)
    out = tmp_path / "killed"
    options = ("--model", tiny_model_dir, "--data", crops, "--out", out, "--batch-size", "1")
    done = launch(processes, script, *options)
    assert done.returncode in (-signal.SIGKILL, 1), done.stderr
    assert not (out / "predictions.jsonl").exists()
    journals = sorted((out / "journal" / "predictions").iterdir())
    assert any(path.read_bytes().endswith(b"car/n0") for path in journals)
    kept = [line for path in journals for line in path.read_bytes().splitlines()[1:] if line.endswith(b"}")]
    assert 1 <= len(kept) <= processes
    capfd.readouterr()
    if processes == 1:
        done = launch(2, ROOT / "eval" / "benchmark.py", *options)
        assert done.returncode == 0, done.stderr
        told = done.stdout
    else:
        evaluate(crops, "--batch-size", "1", out="killed")
        told = capfd.readouterr().out
    assert f"predictions: {len(kept)} of 9 parts are there already" in told
    assert {**files(out), "report.html": b""} == {**files(whole), "report.html": b""}


def stop_after(monkeypatch: pytest.MonkeyPatch, parts: int) -> None:
    add = Journal.add
    done: list[int] = []

    def stopping(self: Journal, part: int, lines: list) -> None:
        if len(done) == parts:
            raise KeyboardInterrupt
        done.append(part)
        add(self, part, lines)

    monkeypatch.setattr(Journal, "add", stopping)


@pytest.fixture
def stopped(crops: Path, evaluate: Evaluate) -> Path:
    """The results of a run that was stopped after three of nine batches."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            evaluate(crops, "--batch-size", "1", out="stopped")
    return crops


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--batch-size", "2"], "batch: holds predictions with 1, this run has 2"),
        (["--batch-size", "1", "--protocol", "pose"], "protocol: holds predictions with joint, this run has pose"),
        (["--batch-size", "1", "--split", "train"], "data: holds predictions with 9 rows in 1 shards, "),
        (["--batch-size", "1", "--dtype", "bfloat16"], "model: holds predictions with "),
        (["--batch-size", "1", "--reading", "error"], "reading: holds predictions with mean, this run has error"),
    ],
)
def test_work_of_another_run_is_not_gone_on_with(
    stopped: Path, evaluate: Evaluate, tmp_path: Path, options: list[str], told: str
) -> None:
    before = {path: path.read_bytes() for path in (tmp_path / "stopped").rglob("*.jsonl")}
    with pytest.raises(UserError) as refused:
        evaluate(stopped, *options, out="stopped")
    assert str(refused.value).startswith(f"{tmp_path / 'stopped'}: {told}")
    assert str(refused.value).endswith("; give another --out, or --overwrite")
    assert {path: path.read_bytes() for path in (tmp_path / "stopped").rglob("*.jsonl")} == before


def test_work_on_another_data_set_is_not_gone_on_with(stopped: Path, evaluate: Evaluate, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_crops(other, "train", 6)
    write_crops(other, "val", 10)
    with pytest.raises(
        UserError, match=r"stopped: data: holds predictions with 9 rows .* this run has 10 rows .* --out"
    ):
        evaluate(other, "--batch-size", "1", out="stopped")
    out = evaluate(other, "--batch-size", "1", "--overwrite", out="stopped")
    assert len((out / "predictions.jsonl").read_bytes().splitlines()) == 10


def test_work_on_the_same_data_elsewhere_is_gone_on_with(
    stopped: Path, evaluate: Evaluate, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in stopped.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    evaluate(moved, "--batch-size", "1", out="stopped")
    assert "predictions: 3 of 9 parts are there already" in capsys.readouterr().out


def test_a_finished_run_is_not_done_again(
    crops: Path, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out = evaluate(crops)
    before = files(out)
    (out / "report.html").unlink()
    monkeypatch.setattr(work, "predict_subjects", None)
    evaluate(crops)
    assert files(out) == before
    assert "finished already" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"flip: holds predictions with False, this run has True"):
        evaluate(crops, "--flip")
    metrics = json.loads((out / "metrics.json").read_text())
    (out / "metrics.json").write_text(json.dumps({**metrics, "settings": {}}))
    with pytest.raises(UserError, match=r"metrics.json: results of unknown origin; give another --out, or --overwrite"):
        evaluate(crops)


def test_a_run_stopped_while_it_writes_its_results_writes_them_next_time(
    crops: Path, evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = files(evaluate(crops))
    for name in ("predictions.jsonl", "metrics.json"):
        with monkeypatch.context() as patch:
            write = benchmark.write_results.__globals__["write_atomic"]

            def full(path: Path, text: str, name: str = name, write: object = write) -> None:
                if path.name == name:
                    raise KeyboardInterrupt
                write(path, text)  # type: ignore[operator]

            patch.setattr("eval.results.write_atomic", full)
            with pytest.raises(KeyboardInterrupt):
                evaluate(crops, out=f"cut {name}")
        assert files(evaluate(crops, out=f"cut {name}")) == whole


def test_a_journal_that_is_no_journal_is_refused(stopped: Path, evaluate: Evaluate, tmp_path: Path) -> None:
    journal = tmp_path / "stopped" / "journal" / "predictions" / "00000.jsonl"
    text = journal.read_text()
    for broken, line in ((text.replace('{"part": 1,', '{"prat": 1,'), 3), ("[]\n" + text, 1)):
        journal.write_text(broken)
        with pytest.raises(UserError, match=rf"00000.jsonl:{line}: not a line of a journal; --overwrite begins anew"):
            evaluate(stopped, "--batch-size", "1", out="stopped")


def test_two_runs_at_once_in_one_folder_are_refused(crops: Path, evaluate: Evaluate, tmp_path: Path) -> None:
    with Journal(tmp_path / "out" / "journal" / "predictions", 0, {}):
        (tmp_path / "out" / "journal" / "predictions" / "00000.jsonl").write_bytes(b"")
        with pytest.raises(UserError, match=r"00000.jsonl: another run is at work in this folder"):
            evaluate(crops)


def test_a_full_disk_leaves_whole_lines_and_a_clear_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def full(file: int, content: bytes) -> int:
        if len(content) > 200:
            return write(file, content[:50])
        raise OSError(28, "No space left on device")

    with Journal(tmp_path, 0, {"a": 1}) as journal:
        journal.add(0, [{"x": 1}])
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(UserError, match=r"00000.jsonl: journal cannot be written: No space left on device"):
            journal.add(1, [{"x": "y" * 200}])
        monkeypatch.undo()
        journal.add(2, [{"x": 3}])
    assert read_journals(tmp_path, {"a": 1}, tmp_path) == {0: [{"x": 1}], 2: [{"x": 3}]}
