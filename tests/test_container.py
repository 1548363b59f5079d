"""The container's files: a linter passes them, and what they say is what the command takes."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from llava_pose.cli import _parser
from llava_pose.serving.settings import ServerSettings

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())


def test_a_linter_finds_nothing_in_the_dockerfile():
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.exists():
        pytest.skip("hadolint is missing (pip install 'llava-pose[dev]')")
    done = subprocess.run([linter, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def started():
    """The command that the container starts, as its words."""
    (command,) = re.findall(r'^CMD \["sh", "-c", "exec llava-pose (.*)"\]$', DOCKERFILE, re.MULTILINE)
    return shlex.split(command.replace('\\"', '"').replace("$MODEL", "embedded"))


def test_what_the_container_starts_is_a_command_of_ours_with_a_key():
    arguments = _parser().parse_args(started())
    assert (arguments.host, arguments.model) == ("0.0.0.0", "embedded")
    assert arguments.api_key_file == "/run/secrets/llava_pose_key" and not arguments.without_key


def test_the_port_is_the_same_everywhere_and_open_to_this_machine_alone():
    port = _parser().parse_args(started()).port
    service = COMPOSE["services"]["llava-pose"]
    assert service["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"EXPOSE {port}\n" in DOCKERFILE and f"127.0.0.1:{port}/health" in DOCKERFILE


def test_the_service_has_its_key_as_a_secret_and_no_rights_it_does_not_need():
    service = COMPOSE["services"]["llava-pose"]
    assert service["secrets"] == ["llava_pose_key"] == list(COMPOSE["secrets"])
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert "USER 1000\n" in DOCKERFILE
    # What was accepted has time to be answered.
    assert int(service["stop_grace_period"].removesuffix("s")) > ServerSettings().max_seconds


def test_all_that_is_copied_is_there_and_not_ignored():
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [word for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]]
    assert sorted(copied) == sorted(allowed)
    assert all((ROOT / name).exists() for name in copied)
    assert "key.txt" in (ROOT / ".gitignore").read_text().splitlines()
