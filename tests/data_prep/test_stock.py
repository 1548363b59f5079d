"""A folder of models through the real command: what cannot be used, what comes twice, what a stop leaves behind."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep import render
from data_prep.crew import Crew
from data_prep.rendering import meshfiles, writer
from data_prep.rendering.shapes import build
from data_prep.rendering.shapes.mesh import off_text
from llava_pose import taxonomy
from llava_pose.errors import UserError
from llava_pose.scene import read_annotations

ROOT = Path(__file__).resolve().parents[2]


def run(out, meshes, *arguments, images=6, workers=1):
    words = ["--out", out, "--meshes", meshes, "--images", images, "--size", 64, "--workers", workers, *arguments]
    render.main([str(word) for word in words])
    return out


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def add(meshes, name, seed=0):
    path = meshes / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(off_text(build("cup", np.random.default_rng(seed))))
    return path


def add_textured(meshes, name, seed=0):
    """A model of three files: its shape, its material, its texture."""
    shape = build("chair", np.random.default_rng(seed))
    path = meshes / name
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = "".join("v {} {} {}\n".format(*row) for row in shape.vertices.tolist()) + "vt 0 0\nvt 1 0\nvt 0 1\n"
    cells = "".join("f {}/1 {}/2 {}/3\n".format(*face) for face in (shape.faces + 1).tolist())
    path.write_text(f"mtllib {path.stem}.mtl\n{rows}usemtl cloth\n{cells}")
    path.with_suffix(".mtl").write_text(f"newmtl cloth\nmap_Kd {path.stem}.png\n")
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path.with_suffix(".png"))


@pytest.fixture
def meshes(tmp_path):
    """Three good cups and two that cannot be used."""
    folder = tmp_path / "meshes"
    for seed in range(3):
        add(folder, f"cup/{seed}.off", seed)
    (folder / "cup" / "bad.off").write_text("OFF\n3 1 0\n0 0 0\n")
    (folder / "cup" / "worse.stl").write_bytes(b"")
    return folder


def test_every_bad_file_is_named_and_nothing_is_left_behind(tmp_path, meshes, capsys):
    with pytest.raises(UserError) as caught:
        run(tmp_path / "out", meshes)
    assert str(caught.value) == (
        f"{meshes}/cup/bad.off: line 2: says 3 vertices, but the file ends after 1 (and 1 more, named above); "
        "--on-error skip leaves out what cannot be used"
    )
    assert f"cannot be used: {meshes}/cup/worse.stl: an empty file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_bad_files_are_left_out_where_the_user_says_so_and_told_of(tmp_path, meshes, capsys):
    out = run(tmp_path / "out", meshes, "--on-error", "skip")
    lines = [
        f"{meshes}/cup/bad.off: line 2: says 3 vertices, but the file ends after 1",
        f"{meshes}/cup/worse.stl: an empty file",
    ]
    assert [f"skipped: {line}" for line in lines] == [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped")
    ]
    assert json.loads((out / render.RECORD).read_text())["skipped"] == lines
    for path in (meshes / "cup" / "bad.off", meshes / "cup" / "worse.stl"):
        path.unlink()
    clean = tree(run(tmp_path / "clean", meshes))
    assert {name: data for name, data in tree(out).items() if name != render.RECORD} == {
        name: data for name, data in clean.items() if name != render.RECORD
    }


def test_a_category_without_a_usable_model_is_an_error_even_when_skipping(tmp_path, meshes):
    (meshes / "car").mkdir()
    (meshes / "car" / "a.glb").write_bytes(b"")
    with pytest.raises(UserError, match=r"meshes: car: none of its 1 models can be used"):
        run(tmp_path / "out", meshes, "--on-error", "skip")
    assert not (tmp_path / "out").exists()


def test_folders_that_are_no_category_or_hold_no_model_are_told_of(tmp_path, capsys):
    meshes = tmp_path / "meshes"
    add(meshes, "cup/a.off")
    add(meshes, "chair/0001/model.off")
    add(meshes, "textures/b.off", 1)
    with pytest.raises(UserError, match="meshes/textures: category: unknown name 'textures'"):
        run(tmp_path / "out", meshes)
    run(tmp_path / "out", meshes, "--on-error", "skip")
    err = capsys.readouterr().err
    assert f"skipped: {meshes}/textures: category: unknown name 'textures'" in err
    assert f"note: {meshes}/chair: holds no model" in err
    assert [path.name for path in (tmp_path / "out" / "images").iterdir()] == ["cup"]


def test_links_and_unreadable_files_are_named(tmp_path, capsys):
    meshes = tmp_path / "meshes"
    add(meshes, "cup/a.off")
    outside = add(tmp_path / "elsewhere", "cup/b.off", 1)
    (meshes / "cup" / "b.off").symlink_to(outside)
    (meshes / "cup" / "c.off").symlink_to(meshes / "cup" / "nowhere.off")
    (meshes / "cup" / "d.off").symlink_to(meshes / "cup" / "a.off")
    (meshes / "cup" / "e.OFF").mkdir()
    run(tmp_path / "out", meshes, "--on-error", "skip")
    err = capsys.readouterr().err
    assert f"skipped: {meshes}/cup/b.off: a link out of the folder" in err
    assert f"skipped: {meshes}/cup/c.off: cannot be read (No such file or directory)" in err
    assert f"note: {meshes}/cup/d.off: the same model as {meshes}/cup/a.off, used once" in err
    assert "e.OFF" not in err


def test_one_model_under_two_names_is_in_one_split(tmp_path, capsys):
    meshes = tmp_path / "meshes"
    for name, seed in (("cup/a.off", 0), ("cup/b.off", 0), ("cup/c.off", 1), ("teapot/t.off", 0), ("teapot/u.off", 2)):
        add(meshes, name, seed)
    out = run(tmp_path / "out", meshes, images=20)
    err = capsys.readouterr().err
    assert f"note: {meshes}/cup/b.off: the same model as {meshes}/cup/a.off, used once" in err
    assert f"note: {meshes}/teapot/t.off: the same model as {meshes}/cup/a.off, of another category" in err
    assert sorted(path.name for path in (out / "CAD" / "cup").iterdir()) == ["00.off", "01.off"]
    used = {}
    for split in ("train", "val"):
        names = (out / "lists" / f"cup_imagenet_{split}.txt").read_text().split()
        found = [a for name in names for a in read_annotations(out / "annotations" / "cup" / f"{name}.npz")]
        used[split] = {
            (out / "CAD" / "cup" / f"{a['cad_index']:02d}.off").read_bytes() for a in found if a["class"] == "cup"
        }
    assert used["train"] and used["val"] and not used["train"] & used["val"]


def test_what_a_model_names_and_lacks_is_a_note(tmp_path, capsys):
    meshes = tmp_path / "meshes"
    (meshes / "cup").mkdir(parents=True)
    (meshes / "cup" / "a.obj").write_text("mtllib lost.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 1\nf 1 2 3\n")
    run(tmp_path / "out", meshes)
    assert f"note: {meshes}/cup/a.obj: 'lost.mtl' is not in the model's folder" in capsys.readouterr().err


def test_folders_with_spaces_and_letters_of_other_languages(tmp_path):
    meshes = tmp_path / "mé shes"
    add(meshes, "Dining Table/modèle nº 1.off")
    decomposed = "Ku\u0308chenstuhl"  # as some systems store a name that was written with ü
    add(meshes, f"{decomposed}/стул.off", 1)
    names = {"kitchen_chair": {"meta_class": "furniture", "aliases": ["Küchenstuhl"]}}
    (tmp_path / "own.json").write_text(json.dumps({"categories": names}), encoding="utf-8")
    try:
        out = run(tmp_path / "aus gabe", meshes, "--taxonomy", tmp_path / "own.json", images=4)
    finally:
        taxonomy.activate(None)
    assert sorted(path.name for path in (out / "images").iterdir()) == ["diningtable", "kitchen_chair"]


def stock_of_several(tmp_path):
    meshes = tmp_path / "meshes"
    for seed in range(3):
        add(meshes, f"cup/{seed}.off", seed)
        add_textured(meshes, f"chair/{seed}.obj", seed)
    return meshes


def test_pictures_of_models_are_the_same_for_any_number_of_workers_and_hold_several_objects(tmp_path):
    meshes = stock_of_several(tmp_path)
    alone = tree(run(tmp_path / "one", meshes, images=40))
    for workers in (2, 3):
        assert tree(run(tmp_path / f"many{workers}", meshes, images=40, workers=workers)) == alone
    annotations = [read_annotations(path) for path in (tmp_path / "one").glob("annotations/*/*.npz")]
    assert {len(objects) for objects in annotations} >= {1, 2}
    assert any({item["class"] for item in objects} == {"cup", "chair"} for objects in annotations)
    assert not (tmp_path / "one" / render.STORE).exists()


def test_a_killed_run_goes_on_with_what_it_had_read_and_ends_with_the_same_bytes(tmp_path, monkeypatch):
    meshes = stock_of_several(tmp_path)
    whole = tree(run(tmp_path / "whole", meshes, images=150))
    out = tmp_path / "out"
    words = ["--out", out, "--meshes", meshes, "--images", 150, "--size", 64, "--workers", 2]
    command = [sys.executable, "data_prep/render.py", *map(str, words)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(out.glob("annotations/*/*.npz"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert 3 <= len(list(out.glob("annotations/*/*.npz"))) < 150 and not (out / "lists").exists()
    kept = sorted(path.name for path in (out / render.STORE).iterdir())
    assert len([name for name in kept if name.endswith(".npz")]) == 6
    monkeypatch.setattr(meshfiles, "read_model", None)  # nothing is read again
    assert tree(run(out, meshes, images=150)) == whole


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    meshes, out = stock_of_several(tmp_path), tmp_path / "out"
    words = ["--out", out, "--meshes", meshes, "--images", 100000, "--size", 64, "--workers", 2]
    command = [sys.executable, "data_prep/render.py", *map(str, words)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(out.glob("annotations/*/*.npz"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    try:
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.05)
    except ProcessLookupError:
        return
    os.killpg(process.pid, signal.SIGKILL)
    pytest.fail("workers outlive their parent")


def test_a_kept_shape_is_read_again_when_its_texture_has_changed(tmp_path):
    meshes = stock_of_several(tmp_path)
    mesh = meshfiles.MeshFile("chair", meshes / "chair" / "0.obj", meshfiles.CANONICAL)
    one, again = (meshfiles.keep_shape(mesh, meshes, tmp_path) for _ in range(2))
    Image.new("RGB", (2, 2), (9, 8, 7)).save(meshes / "chair" / "0.png")
    other = meshfiles.keep_shape(mesh, meshes, tmp_path)
    assert one == again and other.key != one.key
    assert (meshfiles.kept_shape(tmp_path, other.name).skin.texels == [9, 8, 7]).all()


@pytest.mark.parametrize("change", ["model", "texture", "axes", "one more"])
def test_a_folder_is_not_continued_with_other_models(tmp_path, change):
    meshes = stock_of_several(tmp_path)
    out = run(tmp_path / "out", meshes)
    before = tree(out)
    if change == "model":
        add(meshes, "cup/1.off", 7)
    elif change == "texture":
        Image.new("RGB", (2, 2)).save(meshes / "chair" / "0.png")
    elif change == "one more":
        add(meshes, "cup/3.off", 8)
    arguments = ["--front", "cup=+x"] if change == "axes" else []
    with pytest.raises(UserError, match="begun with other models, or other axes of theirs; choose another folder"):
        run(out, meshes, *arguments)
    with pytest.raises(UserError, match="begun with other models"):
        render.main(["--out", str(out), "--images", "6", "--size", "64", "--categories", "chair", "cup"])
    assert tree(out) == before


def test_a_full_disk_is_said_in_one_line_and_the_run_goes_on_once_there_is_room(tmp_path, monkeypatch):
    meshes = stock_of_several(tmp_path)
    whole = tree(run(tmp_path / "whole", meshes, images=12))
    write, written = writer.write_atomic, []

    def until_full(path, content):
        if len(written) == 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written.append(path)
        write(path, content)

    monkeypatch.setattr(writer, "write_atomic", until_full)
    with pytest.raises(UserError, match=r"--out .*out: cannot write \(No space left on device\)"):
        run(tmp_path / "out", meshes, images=12)
    assert not list((tmp_path / "out").rglob("*.partial")) and not (tmp_path / "out" / "lists").exists()
    monkeypatch.setattr(writer, "write_atomic", write)
    assert tree(run(tmp_path / "out", meshes, images=12)) == whole


def test_a_worker_that_is_killed_is_told_of():
    with Crew(2) as crew, pytest.raises(UserError, match="a worker process was killed"):
        list(crew.run(os._exit, [(1,)]))
