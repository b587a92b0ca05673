"""What the wheel holds, and that the lists of dependencies agree."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~;\s]", requirement, maxsplit=1)[0].lower() for requirement in requirements}


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
    for path in (ROOT / "autograder").rglob("*.py"):
        for name in assignments:
            code = re.sub(r'""".*?"""', "", path.read_text(), flags=re.DOTALL)
            assert not re.search(rf"\b{name}\b", code), f"{path} names {name}"


def test_conda_environment_and_project_ask_for_the_same_packages():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert sorted(line for line in pip if not line.startswith("-e")) == sorted(PROJECT["dependencies"])


def test_the_lock_pins_everything_that_the_project_asks_for():
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line.strip()]
    assert all("==" in line for line in lines)
    optional = PROJECT["optional-dependencies"]
    wanted = names([*PROJECT["dependencies"], *optional["autograder"], *optional["dev"]])
    missing = {name.replace("_", "-") for name in wanted} - {name.replace("_", "-") for name in names(lines)}
    assert not missing
