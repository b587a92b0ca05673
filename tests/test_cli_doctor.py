"""`ebmcourse doctor` on machines with missing, outdated or incompatible packages."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOTEBOOK = PROJECT["optional-dependencies"]["notebook"]
NEEDED_BY_THE_COMMAND_LINE = ("click", "rich", "markdown_it", "mdurl", "pygments")


@pytest.fixture
def machine(tmp_path):
    """A folder of packages with only the students' library and the packages that its command line needs."""
    (tmp_path / "ebmcourse").symlink_to(ROOT / "ebmcourse")
    for name in NEEDED_BY_THE_COMMAND_LINE:
        place = Path(importlib.util.find_spec(name).origin).parent
        (tmp_path / name).symlink_to(place)
    extras = [
        f"{line}; extra == {extra!r}" for extra, lines in PROJECT["optional-dependencies"].items() for line in lines
    ]
    pretend(tmp_path, "ebmcourse", PROJECT["version"], PROJECT["dependencies"] + extras)
    for line in PROJECT["dependencies"] + NOTEBOOK:
        name, _, bound = line.partition(">=")
        pretend(tmp_path, name, bound)
    for name in ("torch", "torchvision"):
        (tmp_path / f"{name}.py").write_text("class cuda:\n    is_available = staticmethod(lambda: False)\n")
    return tmp_path


def pretend(folder: Path, name: str, version: str, needs: list[str] = ()) -> None:
    """Make the package `name` look installed."""
    about = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir()
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {need}" for need in needs)]
    (about / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")


def forget(folder: Path, name: str) -> None:
    for path in folder.glob(f"{name}-*.dist-info"):
        (path / "METADATA").unlink()
        path.rmdir()


def doctor(machine, expect: int) -> str:
    code = "import sys; sys.path.insert(0, sys.argv.pop()); from ebmcourse.cli import main; main(['doctor'])"
    command = [sys.executable, "-I", "-S", "-c", code, str(machine)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=machine, check=False)
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_a_complete_machine_has_no_problems(machine):
    said = doctor(machine, expect=0)
    assert "✗" not in said and "no GPU" in said
    assert said.count("✓") == len(PROJECT["dependencies"] + NOTEBOOK) + 3


def test_without_a_gpu_it_names_only_a_preset_that_exists_in_programs_and_in_notebooks(machine):
    said = doctor(machine, expect=0)
    assert "`cpu`" in said and "`smoke`" not in said


def test_the_programs_that_open_and_fetch_notebooks_belong_to_the_course(machine):
    forget(machine, "jupyterlab")
    said = doctor(machine, expect=1).splitlines()
    assert said[said.index("✗ jupyterlab is missing") + 1].strip() == 'pip install "jupyterlab>=4"'


def test_missing_and_outdated_packages_are_shown_with_the_command_that_installs_them(machine):
    forget(machine, "numba")
    forget(machine, "pytest")
    pretend(machine, "pytest", "7.4.1")
    said = doctor(machine, expect=1).splitlines()
    assert said[said.index("✗ numba is missing") + 1].strip() == 'pip install "numba>=0.60"'
    assert said[said.index("✗ pytest 7.4.1 is too old") + 1].strip() == 'pip install --upgrade "pytest>=8"'


def test_the_library_itself_may_be_missing(machine):
    forget(machine, "ebmcourse")
    assert "pip install -r requirements.txt" in doctor(machine, expect=1)


@pytest.mark.parametrize("error", ["RuntimeError", "ImportError", "OSError"])
def test_torch_and_torchvision_may_be_incompatible(machine, error):
    (machine / "torchvision.py").write_text(f"raise {error}('operator torchvision::nms does not exist\\nand more')\n")
    said = doctor(machine, expect=1)
    assert "(operator torchvision::nms does not exist)" in said
    assert "pip install --force-reinstall torch torchvision" in said


@pytest.mark.parametrize("name", ["click", "rich"])
def test_packages_of_the_command_line_may_be_missing(machine, name):
    (machine / name).unlink()
    assert f"{name} is missing: run `pip install -r requirements.txt`" in doctor(machine, expect=2)
