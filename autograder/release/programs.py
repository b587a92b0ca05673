"""The programs and notebooks of an assignment: those of the reference, and those that students are given.

A program is a dict of file name -> text. It consists of the Python files that students hand in, or it is made from the
cells of the notebook that they hand in (`ebmcourse.checking.program`).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from autograder.assignment import Assignment
from autograder.release.stubs import student_version
from ebmcourse.checking.program import program, read_notebook

if TYPE_CHECKING:
    from ebmcourse.checking.check import Check


def checks_of(assignment: Assignment) -> list[Check]:
    """Return all checks of an assignment, including the hidden ones."""
    files = sorted(assignment.checks.glob("*.py"))
    return _collected(assignment.checks, tuple((path.name, path.read_bytes()) for path in files))


@cache
def _collected(folder: Path, _content: tuple[tuple[str, bytes], ...]) -> list[Check]:
    from ebmcourse.checking.judge import collect  # imports torch

    return collect(folder)


def part_points(assignment: Assignment) -> dict[str, float]:
    """Return the points of each exercise: the sum over its checks."""
    return by_part((check.part, check.points) for check in checks_of(assignment))


def by_part(points_of_checks: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return the sum of the points of the checks of each part."""
    points: dict[str, float] = {}
    for part, worth in points_of_checks:
        points[part] = points.get(part, 0.0) + worth
    return points


def reference_program(assignment: Assignment) -> dict[str, str]:
    """Return the reference solution, with the given files that it imports."""
    files = {path.name: path.read_text("utf-8") for path in assignment.scripts}
    if assignment.hands_in_notebook:
        files |= program(assignment.name, read_notebook(solved(assignment)).cells)
    return files | assignment.given_texts()


def stub_program(assignment: Assignment, name: str) -> dict[str, str]:
    """Return the students' version of the file `name`, which they hand in."""
    if name.endswith(".ipynb"):
        return program(assignment.name, read_notebook(released(assignment)).cells)
    return {name: student_version((assignment.folder / name).read_text("utf-8"), name)}


def solved(assignment: Assignment) -> str:
    """Return the notebook with the solutions of the reference."""
    return _notebook("solved_notebook", *_source(assignment))


def released(assignment: Assignment) -> str:
    """Return the notebook that students are given."""
    return _notebook("student_notebook", *_source(assignment))


def _source(assignment: Assignment) -> tuple[str, tuple[tuple[str, float], ...]]:
    assert assignment.notebook
    return assignment.notebook.read_text("utf-8"), tuple(part_points(assignment).items())


@cache
def _notebook(form: str, script: str, points: tuple[tuple[str, float], ...]) -> str:
    from autograder.release import notebooks  # importing nbgrader takes seconds

    text: str = getattr(notebooks, form)(script, dict(points))
    return text
