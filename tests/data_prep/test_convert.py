"""The machinery of conversions: the same bytes from any number of workers and after any stop, nothing mixed or half."""

import itertools
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

import data_prep.conversion.convert
from data_prep.conversion import jobs, shards, workfolder
from data_prep.conversion.stamp import renew_stamp
from data_prep.speed_data import write_release
from llava_pose.errors import UserError
from tests.small_release import add_chairs, annotation, contents, convert, rows_of, small_release, write_npz

ROOT = Path(__file__).parents[2]
# The real command with shards of a few images, so that a small data set has many.
SMALL_SHARDS = """
import sys
import data_prep.conversion.convert
from data_prep.imagenet3d import main
from llava_pose.errors import run_cli
if __name__ == "__main__":
    data_prep.conversion.convert.IMAGES_PER_SHARD = 4
    run_cli(main)
"""


@pytest.fixture
def root(tmp_path):
    """A release of 123 images for train, 31 shards of four, and one for val."""
    root = small_release(tmp_path / "a release with spaces – ü")
    add_chairs(root, range(10, 130))
    return root


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(data_prep.conversion.convert, "IMAGES_PER_SHARD", 4)


def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SMALL_SHARDS)
    return path


def start(tmp_path, root, *options, **more):
    command = [sys.executable, script(tmp_path), "--root", root, "--out", tmp_path / "out", "--size", "64", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def finish(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@pytest.fixture
def whole(tmp_path, root, small_shards):
    """What an uninterrupted conversion gives."""
    convert(root, tmp_path / "whole", "--size", "64")
    return contents(tmp_path / "whole")


def test_any_number_of_workers_gives_the_same_bytes(tmp_path, root, whole):
    assert len([name for name in whole if name.startswith("train-")]) == 31
    convert(root, tmp_path / "three", "--size", "64", "--workers", "3")
    assert contents(tmp_path / "three") == whole


def test_rows_are_cut_into_shards_and_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ROWS_PER_GROUP", 2)
    monkeypatch.setattr(data_prep.conversion.convert, "IMAGES_PER_SHARD", 5)
    root = small_release(tmp_path / "release")
    add_chairs(root, range(5, 14))
    convert(root, tmp_path / "out", "--size", "16")
    names = sorted(path.name for path in (tmp_path / "out").glob("train-*"))
    assert names == [f"train-{index:05d}-of-00003.parquet" for index in range(3)]
    files = [pq.ParquetFile(tmp_path / "out" / name).metadata for name in names]
    groups = [[file.row_group(k).num_rows for k in range(file.num_row_groups)] for file in files]
    assert groups == [[2, 2, 1], [2, 2, 1], [2]]
    ids = [row.image_id for row in rows_of(tmp_path / "out", "train")]
    chairs = [f"chair/n{number:02d}" for number in range(5, 14)]
    assert ids == ["babby_buggy/n03", "car/n01", "car/n01", *chairs]


def test_a_shard_without_a_row_does_no_harm(tmp_path, monkeypatch):
    monkeypatch.setattr(data_prep.conversion.convert, "IMAGES_PER_SHARD", 1)
    convert(small_release(tmp_path / "release"), tmp_path / "out", "--size", "16")
    assert len(list((tmp_path / "out").glob("train-*"))) == 3
    assert {split: len(rows) for split, rows in load_dataset(str(tmp_path / "out")).items()} == {"train": 3, "val": 1}
    assert len(rows_of(tmp_path / "out", "train")) == 3


@pytest.mark.parametrize("workers", ["1", "2"])
def test_killed_at_any_moment_and_started_again_it_ends_with_the_same_bytes(tmp_path, root, whole, workers):
    """Killed where it starts, in the middle of shards, between shard and report, and near the end."""
    rng = random.Random(int(workers))
    reports = tmp_path / ".out.partial" / jobs.REPORTS
    seen = []
    for least in (0, 2, 7):
        process = start(tmp_path, root, "--workers", workers)
        while process.poll() is None and (least and len(list(reports.glob("*.json"))) < least):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.01) if least else rng.uniform(0, 1.5))
        process.send_signal(signal.SIGKILL)
        finish(process)
        if (tmp_path / "out").exists():
            break
        seen.append({path.name: path.stat().st_mtime_ns for path in reports.glob("*.json")})
    if not (tmp_path / "out").exists():
        code, _, err = finish(start(tmp_path, root, "--workers", workers))
        assert code == 0, err
        assert "goes on, " in err
    assert contents(tmp_path / "out") == whole
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
    for earlier, later in itertools.pairwise(seen):
        assert earlier.items() <= later.items(), "a finished shard was made again"
    assert any(seen)


def test_workers_end_with_a_killed_parent(tmp_path, root):
    process = start(tmp_path, root, "--workers", "2", start_new_session=True)
    reports = tmp_path / ".out.partial" / jobs.REPORTS
    while process.poll() is None and not list(reports.glob("*.json")):
        time.sleep(0.01)
    assert process.poll() is None
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("workers outlive their parent")
    process.communicate()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_ends_it_with_a_word_and_it_goes_on_later(tmp_path, root, whole, workers):
    process = start(tmp_path, root, "--workers", workers, start_new_session=True)
    reports = tmp_path / ".out.partial" / jobs.REPORTS
    while process.poll() is None and len(list(reports.glob("*.json"))) < 2:
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGINT)
    code, _, err = finish(process)
    assert (code, err.splitlines()) == (130, ["interrupted"])
    code, _, err = finish(start(tmp_path, root, "--workers", workers))
    assert code == 0 and "goes on, " in err
    assert contents(tmp_path / "out") == whole


def stopped(tmp_path, root, monkeypatch, after=3):
    """A conversion in this process that fails to write after so many shards."""
    made = jobs.make_shard

    def fail_later(job, shop, advance):
        if len(list((shop.folder / jobs.REPORTS).iterdir())) >= after:
            raise OSError(28, "No space left on device")
        return made(job, shop, advance)

    with monkeypatch.context() as patch:
        patch.setattr("data_prep.conversion.pool.make_shard", fail_later)
        with pytest.raises(UserError, match="out: cannot be written: No space left on device") as error:
            convert(root, tmp_path / "out", "--size", "64")
    assert f"({after} of 32 shards are finished and kept" in str(error.value)


def test_started_again_with_other_settings_it_says_so_and_mixes_nothing(tmp_path, root, small_shards, monkeypatch):
    stopped(tmp_path, root, monkeypatch)
    before = contents(tmp_path / ".out.partial" / jobs.SHARDS)
    for options, difference in [
        (["--size", "32"], "size 64 and not 32"),
        (["--size", "64", "--crop", "box"], "kind object and not box"),
        (["--size", "64", "--limit", "7"], "limit None and not 7"),
    ]:
        with pytest.raises(UserError, match="an unfinished conversion lies beside it, with " + difference):
            convert(root, tmp_path / "out", *options)
    other = small_release(tmp_path / "other")
    with pytest.raises(UserError, match=f"with root {root} and not {other}"):
        convert(other, tmp_path / "out", "--size", "64")
    assert contents(tmp_path / ".out.partial" / jobs.SHARDS) == before
    convert(root, tmp_path / "out", "--size", "32", "--overwrite")
    convert(root, tmp_path / "fresh", "--size", "32")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_only_shards_whose_files_have_changed_are_made_again(tmp_path, root, small_shards, monkeypatch, capsys):
    stopped(tmp_path, root, monkeypatch)
    write_npz(root / "annotations/chair/n10.npz", annotation(azimuth=2.5, **{"class": "chair"}))
    convert(root, tmp_path / "out", "--size", "64")
    assert "goes on, 2 of 32 shards are finished" in capsys.readouterr().err
    convert(root, tmp_path / "fresh", "--size", "64")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_a_longer_list_changes_the_shards_it_changes(tmp_path, root, small_shards, monkeypatch):
    stopped(tmp_path, root, monkeypatch)
    add_chairs(root, range(130, 134))
    convert(root, tmp_path / "out", "--size", "64")
    convert(root, tmp_path / "fresh", "--size", "64")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_a_torn_shard_is_made_again(tmp_path, root, whole, small_shards, monkeypatch):
    stopped(tmp_path, root, monkeypatch)
    torn = next((tmp_path / ".out.partial" / jobs.SHARDS).glob("train-00001*"))
    torn.write_bytes(torn.read_bytes()[:200])
    convert(root, tmp_path / "out", "--size", "64")
    assert contents(tmp_path / "out") == whole


def test_stopped_by_a_mistake_it_goes_on_once_that_is_mended_or_to_be_skipped(tmp_path, root, whole, small_shards):
    image = root / "images/chair/n30.JPEG"
    good, stat = image.read_bytes(), image.stat()
    image.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"n30\.JPEG: not a readable image: .* shards are finished and kept"):
        convert(root, tmp_path / "out", "--size", "64")
    convert(root, tmp_path / "skipping", "--size", "64", "--on-error", "skip")
    shutil.copytree(tmp_path / ".out.partial", tmp_path / ".lenient.partial")
    convert(root, tmp_path / "lenient", "--size", "64", "--on-error", "skip")
    assert contents(tmp_path / "lenient") == contents(tmp_path / "skipping")
    image.write_bytes(good)
    os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    convert(root, tmp_path / "out", "--size", "64")
    assert contents(tmp_path / "out") == whole


def test_what_was_skipped_stops_a_strict_run_that_goes_on(tmp_path, root, small_shards, monkeypatch):
    (root / "images/chair/n10.JPEG").write_bytes(b"no image")
    made = jobs.make_shard

    def fail_later(job, *rest):
        if job.split == "val":
            raise OSError(28, "No space left on device")
        return made(job, *rest)

    with monkeypatch.context() as patch:
        patch.setattr("data_prep.conversion.pool.make_shard", fail_later)
        with pytest.raises(UserError, match="No space left"):
            convert(root, tmp_path / "out", "--size", "64", "--on-error", "skip")
    with pytest.raises(UserError, match=r"n10\.JPEG: not a readable image"):
        convert(root, tmp_path / "out", "--size", "64")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk_is_one_line_and_nothing_half_written(tmp_path, root, whole, workers):
    """No file may grow beyond 9 KB, so the first shards that are larger cannot be written."""
    largest = sorted(len(content) for name, content in whole.items() if name.endswith(".parquet"))
    limit = (largest[0] + largest[-1]) // 2

    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    code, _, err = finish(start(tmp_path, root, "--workers", workers, preexec_fn=small_files))
    [line] = [line for line in err.splitlines() if "image" not in line]
    assert code == 2 and line.startswith(f"error: {tmp_path}/out: cannot be written: ") and "File too large" in line
    assert not (tmp_path / "out").exists()
    code, _, err = finish(start(tmp_path, root, "--workers", workers))
    assert code == 0, err
    assert contents(tmp_path / "out") == whole


def test_two_conversions_at_once_are_refused(tmp_path, root, monkeypatch):
    busy = pytest.raises(UserError, match="out: another conversion is writing it at this moment")
    with workfolder.WorkFolder(tmp_path / "out", {}, overwrite=False), busy:
        convert(root, tmp_path / "out", "--size", "64")
    convert(root, tmp_path / "out", "--size", "64")


def test_an_output_folder_in_use_is_refused_and_an_earlier_output_replaced_on_request(tmp_path):
    root, out = small_release(tmp_path / "release"), tmp_path / "out"
    out.mkdir()
    convert(root, out, "--size", "16")
    with pytest.raises(UserError, match="out: output folder is not empty"):
        convert(root, out, "--size", "32")
    assert rows_of(out, "train")[0].width == 16
    convert(root, out, "--size", "32", "--overwrite")
    assert rows_of(out, "train")[0].width == 32
    (out / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match=r"output folder holds 'thesis\.txt'"):
        convert(root, out, "--overwrite")
    assert (out / "thesis.txt").read_text() == "precious"
    with pytest.raises(UserError, match=r"n01\.JPEG: output folder is a file"):
        convert(root, root / "images/car/n01.JPEG")


def test_a_failed_overwrite_keeps_the_earlier_output(tmp_path):
    root, out = small_release(tmp_path / "release"), tmp_path / "out"
    convert(root, out, "--size", "16")
    (root / "images/car/n04.JPEG").unlink()
    with pytest.raises(UserError, match="image is missing"):
        convert(root, out, "--overwrite")
    assert len(rows_of(out, "train")) == 3


def test_what_a_killed_run_left_is_cleared_by_the_next(tmp_path):
    root = small_release(tmp_path / "release")
    for name in (".out.partial", ".out.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train-00000.part").write_bytes(b"torn")
    convert(root, tmp_path / "out", "--size", "16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "release"]
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_datasets_tells_folders_of_one_name_and_later_contents_apart(tmp_path):
    """It keeps what it has opened by the header of the card alone."""
    root = small_release(tmp_path / "release")
    convert(root, tmp_path / "one/out", "--size", "32")
    assert load_dataset(str(tmp_path / "one/out"), split="val")[0]["objects"][0]["azimuth"] == 1.0
    write_npz(root / "annotations/car/n04.npz", annotation(azimuth=2.0))
    convert(root, tmp_path / "two/out", "--size", "32")
    assert load_dataset(str(tmp_path / "two/out"), split="val")[0]["objects"][0]["azimuth"] == 2.0
    convert(root, tmp_path / "one/out", "--size", "32", "--overwrite")
    assert load_dataset(str(tmp_path / "one/out"), split="val")[0]["objects"][0]["azimuth"] == 2.0


def test_a_changed_shard_is_opened_anew_once_the_card_is_stamped(tmp_path):
    convert(small_release(tmp_path / "release"), tmp_path / "out", "--size", "32")
    assert load_dataset(str(tmp_path / "out"), split="val")[0]["caption"]
    card = (tmp_path / "out/README.md").read_text()
    shard = tmp_path / "out/val-00000-of-00001.parquet"
    shards.rewrite_columns(shard, tmp_path / "new", ["caption"], lambda row: {"caption": "No car <pose>."})
    os.replace(tmp_path / "new", shard)
    renew_stamp(tmp_path / "out")
    assert load_dataset(str(tmp_path / "out"), split="val")[0]["caption"] == "No car <pose>."
    changed = set(card.splitlines()) ^ set((tmp_path / "out/README.md").read_text().splitlines())
    assert len(changed) == 2 and all(line.startswith("  description: ") for line in changed)


MEASURED = """
import resource, sys
from data_prep.imagenet3d import main
if __name__ == "__main__":
    main()
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    print(max(resource.getrusage(kind).ru_maxrss for kind in kinds) // 1024)
"""


@pytest.mark.slow
def test_memory_stays_flat_as_the_data_grow(tmp_path):
    """The largest process needs as much for four times the images, over the border of a shard."""
    write_release(tmp_path / "release", 600)
    (tmp_path / "script.py").write_text(MEASURED)
    peaks, sizes = [], []
    for limit in ("150", "600"):
        out = tmp_path / limit
        command = [sys.executable, tmp_path / "script.py", "--root", tmp_path / "release", "--out", out]
        command += ["--limit", limit, "--workers", "2"]
        result = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        peaks.append(int(result.stdout.splitlines()[-1]))
        sizes.append(sum(path.stat().st_size for path in out.glob("*.parquet")) / 2**20)
    assert sizes[1] - sizes[0] > 40
    assert peaks[1] - peaks[0] < 20, peaks
