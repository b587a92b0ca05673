"""`autograder new`: the new assignment is complete and works with all other commands."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from autograder import assignment as assignments
from autograder.cli import main as autograder
from autograder.quality.cases import load

KINDS = pytest.mark.parametrize("kind", [[], ["--notebook"]], ids=["files", "notebook"])


def run(course, *arguments):
    return CliRunner().invoke(autograder, ["--course", str(course), *map(str, arguments)])


def rename(folder, old, new):
    """Rename a function in the files of an assignment, as an author would with an editor."""
    for path in folder:
        path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("needs_sandbox")
@pytest.mark.parametrize(("kind", "name"), [([], "free_energy"), (["--notebook"], "soft_minimum")])
def test_a_new_assignment_can_be_released_and_graded_and_passes_the_quality_cases(tmp_path, kind, name):
    """Also after its function was renamed."""
    course = tmp_path / "course"
    assert run(course, "new", "fresh", *kind).exit_code == 0
    rename([path for path in (course / "solutions").rglob("*.*") if path.is_file()], "free_energy", name)
    for command in ["release", "fresh"], ["release", "--check"]:
        result = run(course, *command)
        assert result.exit_code == 0, result.output
    fresh = assignments.load("fresh", course)
    for case in load(fresh, "class"):
        case.write(fresh, tmp_path / "submitted" / case.name / "fresh")
    out = tmp_path / "results"
    result = run(course, "grade", "fresh", tmp_path / "submitted", "--out", out, "--workers", 1)
    assert result.exit_code == 0, result.output
    scores = {path.stem: json.loads(path.read_text()) for path in (out / "fresh").glob("s00?.json")}
    assert scores["s001"]["score"] == scores["s001"]["max_score"] > 0
    assert scores["s002"]["score"] == scores["s003"]["score"] == 0
    assert all("soft maximum" in check["diagnosis"] for check in scores["s002"]["checks"])
    assert run(course, "report", out).exit_code == 0
    # Attacks take time and are common to all assignments, so they run for one of the kinds only.
    result = run(course, "quality", "fresh", "--workers", 1, *(["--only", "mutants"] if kind else []))
    assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_a_function_that_is_renamed_in_some_files_only_is_not_released(tmp_path):
    assert run(tmp_path, "new", "fresh").exit_code == 0
    folder = tmp_path / "solutions" / "fresh"
    rename([folder / "ex_fresh.py"], "free_energy", "soft_minimum")
    result = run(tmp_path, "release", "fresh")
    assert result.exit_code == 2 and "The reference does not pass 1a/" in result.output
    assert "free_energy" in result.output and "Traceback" not in result.output
    rename([folder / "checks" / "test_1.py"], "free_energy", "soft_minimum")
    result = run(tmp_path, "release", "fresh")
    where = 'of the notebook (`print(f"β = {beta:5}  F = {ex_fresh.free_energy(energies, beta).item():.3f}")`)'
    assert result.exit_code == 1 and f"{where} stops with AttributeError" in result.output
    assert "has no attribute 'free_energy'" in result.output
    assert not (tmp_path / "assignments").exists()


@KINDS
def test_no_placeholder_and_no_other_file_is_left(tmp_path, kind):
    assert run(tmp_path, "new", "fresh", *kind).exit_code == 0
    assert [path.name for path in (tmp_path / "solutions").iterdir()] == ["fresh"]
    for path in (tmp_path / "solutions").rglob("*"):
        assert "__" not in path.name and not (path.is_file() and "__" in path.read_text())


def test_an_existing_assignment_is_not_overwritten(tmp_path):
    assert run(tmp_path, "new", "fresh").exit_code == 0
    sheet = tmp_path / "solutions" / "fresh" / "assignment.toml"
    sheet.write_text("my own\n")
    result = run(tmp_path, "new", "fresh")
    assert result.exit_code == 2 and "choose another name" in result.output
    assert sheet.read_text() == "my own\n"


@pytest.mark.parametrize("name", ["", "Fresh", "two words", "../up", "a-b", "1st", "class", "torch", "json"])
def test_an_invalid_name_is_refused_in_a_sentence(tmp_path, name):
    result = run(tmp_path, "new", "--", name)
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert "name" in result.output
    assert not (tmp_path / "solutions").exists()
