"""Marks in a real nbgrader gradebook."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from nbgrader.api import Gradebook

from autograder.export import export
from autograder.results import Result, write_result
from ebmcourse.checking.outcome import Outcome


def result(student: str, *points: float) -> Result:
    parts = ["3.2a", "3.2a", "2a"]
    most = [1.0, 1.0, 4.0]
    checks = [
        Outcome(f"{part}/{n}", part, "t", "passed" if got else "failed", got, top, True)
        for n, (part, got, top) in enumerate(zip(parts, points, most, strict=True))
    ]
    return Result("jem", student, sum(points), sum(most), "", "", 0, [], checks, True)


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A gradebook as `nbgrader generate_assignment` leaves it: two tested parts, one written answer."""
    # nbgrader calls the alembic command when it makes a gradebook.
    monkeypatch.setenv("PATH", sysconfig.get_path("scripts"), prepend=os.pathsep)
    path = tmp_path / "gradebook.db"
    with Gradebook(f"sqlite:///{path}") as gradebook:
        gradebook.add_assignment("jem")
        gradebook.add_notebook("jem", "jem")
        gradebook.add_grade_cell("test-3-2a", "jem", "jem", max_score=2, cell_type="code")
        gradebook.add_grade_cell("check_2a", "jem", "jem", max_score=8, cell_type="code")
        gradebook.add_grade_cell("answer-3-1", "jem", "jem", max_score=5, cell_type="markdown")
        gradebook.add_solution_cell("answer-3-1", "jem", "jem")
        gradebook.add_grade_cell("sketch-3-1", "jem", "jem", max_score=3, cell_type="code")
        gradebook.add_solution_cell("sketch-3-1", "jem", "jem")
        gradebook.add_solution_cell("logits", "jem", "jem")
    return path


@pytest.fixture
def gradebook(database: Path) -> Iterator[Gradebook]:
    with Gradebook(f"sqlite:///{database}") as opened:
        yield opened


def put(folder: Path, *results: Result) -> Path:
    for given in results:
        write_result(folder / "results", given)
    return folder / "results"


def test_each_part_marks_its_cell(tmp_path: Path, database: Path, gradebook: Gradebook) -> None:
    written = export(put(tmp_path, result("s001", 1, 1, 4), result("s002", 1, 0, 0)), "nbgrader", tmp_path)
    assert written == [database]
    # Cell check_2a is worth 8 where the part has 4 points: shares are kept.
    for student, tested, checked in (("s001", 2, 8), ("s002", 1, 0)):
        grades = {
            name: gradebook.find_grade(name, "jem", "jem", student)
            for name in ("test-3-2a", "check_2a", "answer-3-1", "sketch-3-1")
        }
        assert grades["test-3-2a"].auto_score == tested and grades["check_2a"].auto_score == checked
        assert not grades["test-3-2a"].needs_manual_grade and not grades["check_2a"].needs_manual_grade
        for name in ("answer-3-1", "sketch-3-1"):
            assert grades[name].auto_score is None and grades[name].needs_manual_grade
        assert gradebook.find_submission("jem", student).score == tested + checked


def test_exporting_again_updates_marks_and_keeps_what_a_person_gave(
    tmp_path: Path, database: Path, gradebook: Gradebook
) -> None:
    export(put(tmp_path, result("s001", 0, 0, 0)), "nbgrader", database)
    answer = gradebook.find_grade("answer-3-1", "jem", "jem", "s001")
    answer.manual_score, answer.needs_manual_grade = 4.5, False
    overruled = gradebook.find_grade("check_2a", "jem", "jem", "s001")
    overruled.manual_score = 7.0
    gradebook.db.commit()

    export(put(tmp_path, result("s001", 1, 1, 0)), "nbgrader", database)
    gradebook.db.expire_all()
    assert (answer.manual_score, answer.needs_manual_grade) == (4.5, False)
    assert (overruled.score, overruled.auto_score, overruled.needs_manual_grade) == (7.0, 0.0, True)
    assert gradebook.find_submission("jem", "s001").score == 4.5 + 7 + 2


def test_a_late_mark_is_a_penalty_and_goes_when_it_goes(tmp_path: Path, database: Path, gradebook: Gradebook) -> None:
    export(put(tmp_path, replace(result("s001", 1, 1, 4), score=4.5)), "nbgrader", database)
    assert gradebook.find_submission("jem", "s001").late_submission_penalty == 1.5
    export(put(tmp_path, result("s001", 1, 1, 4)), "nbgrader", database)
    gradebook.db.expire_all()
    assert not gradebook.find_submission("jem", "s001").late_submission_penalty


def test_a_gradebook_that_does_not_fit_is_left_alone(tmp_path: Path, database: Path, gradebook: Gradebook) -> None:
    gradebook.add_grade_cell("test-9", "jem", "jem", max_score=1, cell_type="code")
    gradebook.add_grade_cell("again-2a", "jem", "jem", max_score=1, cell_type="code")
    other = replace(result("s001", 1, 1, 4))
    other.checks.append(Outcome("7/x", "7", "t", "passed", 1.0, 1.0, True))
    with pytest.raises(ValueError, match=r"test-9 belongs to no part.*part 7 has no cell") as error:
        export(put(tmp_path, other), "nbgrader", database)
    assert "again-2a and check_2a both belong to part 2a" in str(error.value)
    assert gradebook.students == []


def test_a_missing_gradebook_or_assignment_says_what_to_do(tmp_path: Path, database: Path) -> None:
    results = put(tmp_path, result("s001", 1, 1, 4))
    with pytest.raises(ValueError, match="generate_assignment"):
        export(results, "nbgrader", tmp_path / "other.db")
    assert not (tmp_path / "other.db").exists()
    write_result(results, replace(result("s001", 1, 1, 4), assignment="deep"))
    with pytest.raises(ValueError, match="generate_assignment deep"):
        export(results, "nbgrader", database)
