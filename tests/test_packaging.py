"""What the wheel holds, and who may import whom."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.mark.slow
def test_the_wheel_holds_the_students_library_and_nothing_else(tmp_path):
    options = ["--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, ROOT], check=True)
    wheel = next(tmp_path.glob("*.whl"))
    members = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in members} == {"ebmcourse", f"ebmcourse-{PROJECT['version']}.dist-info"}
    assert any(name.endswith("OFL.txt") for name in members)
    text = b"".join(zipfile.ZipFile(wheel).read(name) for name in members)
    assert b"BEGIN SOLUTION" not in text and b"BEGIN HIDDEN" not in text


def test_the_students_library_never_imports_the_autograder():
    for path in (ROOT / "ebmcourse").rglob("*.py"):
        assert not re.search(r"^\s*(from|import) autograder", path.read_text(), re.MULTILINE), path


def test_the_engine_names_no_assignment():
    assignments = [path.parent.name for path in (ROOT / "solutions").glob("*/assignment.toml")]
    template = ROOT / "autograder" / "release" / "template"  # its function may have the name of an assignment
    for path in (ROOT / "autograder").rglob("*.py"):
        for name in assignments if not path.is_relative_to(template) else ():
            code = re.sub(r'""".*?"""', "", path.read_text(), flags=re.DOTALL)
            assert not re.search(rf"\b{name}\b", code), f"{path} names {name}"
