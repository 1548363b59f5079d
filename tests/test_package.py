import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import llava_pose

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]


def pins(python):
    """Package to version, as constraints.txt has them for one Python."""
    found = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        requirement, _, marker = line.partition(" ; ")
        if marker and not Marker(marker).evaluate({"python_version": python}):
            continue
        name, version = requirement.split("==")
        assert canonicalize_name(name) not in found, f"{name} is pinned twice for Python {python}"
        found[canonicalize_name(name)] = version
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_has_one_pin_within_its_bounds(python):
    pinned = pins(python)
    text = (ROOT / "pyproject.toml").read_text()
    project = text[text.index("dependencies = [") : text.index("[project.scripts]")]
    requirements = re.findall(r'"([A-Za-z0-9_-]+)([<>=][^"]*)"', project)
    assert len(requirements) > 20
    for name, bounds in requirements:
        assert SpecifierSet(bounds).contains(pinned[canonicalize_name(name)]), f"{name} for Python {python}"


def test_no_gpu_package_is_pinned():
    assert not [name for name in pins("3.11") if name.startswith(("nvidia", "cuda", "triton"))]


def test_importing_the_package_imports_nothing_heavy():
    script = "import sys, llava_pose; print([m for m in ('torch', 'transformers', 'numpy', 'PIL') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error():
    assert "LlavaPose" in dir(llava_pose)
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = llava_pose.Nothing
