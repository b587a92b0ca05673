"""The lists of dependencies agree: pyproject.toml, autograder/pyproject.toml, environment.yml, requirements.lock."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
AUTOGRADER = tomllib.loads((ROOT / "autograder" / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
LOCK = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if line.strip()]

OF_THE_ENVIRONMENT = {"pip", "setuptools"}  # that `python -m venv` or pip brings itself: pip freeze leaves them out

DECLARED = [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]


def bounds(requirements: list[str]) -> dict[str, str]:
    """Name -> version bound."""
    parsed = map(Requirement, requirements)
    return {canonicalize_name(requirement.name): str(requirement.specifier) for requirement in parsed}


PINS = {name: bound.removeprefix("==") for name, bound in bounds(LOCK).items()}


def test_the_lock_pins_one_version_of_each_package_in_the_order_of_names():
    names = [re.split("==", line)[0].lower() for line in LOCK]
    assert names == sorted(names) and len(names) == len(set(names))
    for line in LOCK:
        assert re.fullmatch(r"[\w.-]+==[\w.]+( ; sys_platform == \"linux\")?", line), line


@pytest.mark.parametrize("line", DECLARED)
def test_every_declared_dependency_has_a_bound_and_is_locked_at_a_version_within_it(line):
    requirement = Requirement(line)
    assert requirement.specifier, f"{line} has no bound"
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


def test_the_lock_is_complete_what_locked_packages_need_is_locked_too():
    import importlib.metadata as metadata

    for name, version in PINS.items():
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # locked for another system
        assert found.version == version, f"{name} {found.version} is installed, {version} is locked: run make"
        for line in found.requires or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                if needed.name in OF_THE_ENVIRONMENT:
                    continue
                pin = PINS.get(canonicalize_name(needed.name))
                assert pin is not None, f"{name} needs {needed.name}, which is not locked"
                assert needed.specifier.contains(pin, prereleases=True), f"{name} needs {needed}, locked is {pin}"


def test_the_conda_environment_asks_for_what_the_project_does_and_for_nothing_else():
    *conda, last = ENVIRONMENT["dependencies"]
    pip = [line for line in last["pip"] if line != "-e ."]
    assert len(pip) == len(last["pip"]) - 1, "the project itself is missing"
    assert bounds(pip) == bounds([*PROJECT["dependencies"], *EXTRAS["notebook"]])
    assert pip == sorted(pip)
    assert [line.partition("=")[0] for line in conda] == ["python", "pip"]


def test_the_conda_environment_has_the_form_that_conda_reads():
    assert set(ENVIRONMENT) == {"name", "channels", "dependencies"}
    assert re.fullmatch(r"[a-z][a-z0-9_-]*", ENVIRONMENT["name"])
    assert ENVIRONMENT["channels"] == ["conda-forge"]
    *conda, last = ENVIRONMENT["dependencies"]
    assert all(re.fullmatch(r"[a-z][a-z0-9._-]*(=[0-9]+(\.[0-9]+)*)?", line) for line in conda), conda
    assert set(last) == {"pip"} and all(isinstance(line, str) for line in last["pip"])


def test_python_is_the_same_everywhere():
    python = next(line for line in ENVIRONMENT["dependencies"] if str(line).startswith("python="))
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.partition("=")[2] + ".0")
    assert AUTOGRADER["requires-python"] == PROJECT["requires-python"]


def test_the_instructors_tool_asks_for_the_extra_that_is_for_it():
    (needed,) = map(Requirement, AUTOGRADER["dependencies"])
    assert needed.name == PROJECT["name"] and needed.extras == {"autograder"}


def test_every_declared_dependency_has_its_reason_in_the_design():
    design = (ROOT / "docs" / "design.md").read_text()
    reasons = design[design.index("## Dependencies") :]
    missing = [name for name in bounds(DECLARED) if not re.search(rf"\b{re.escape(name)}\b", reasons)]
    assert not missing
