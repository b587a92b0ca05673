"""The programs and notebooks of an assignment: those of the reference, and those that students start from.

A program is a dict of file name -> text. Where Python files are handed in, it consists of these files; where a notebook
is handed in, it is made of the notebook's cells (`ebmcourse.checking.program`).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from autograder.assignment import Assignment
from autograder.release.stubs import student_version
from ebmcourse.checking.check import Check
from ebmcourse.checking.judge import collect
from ebmcourse.checking.program import program, read_notebook


def checks_of(assignment: Assignment) -> list[Check]:
    """All checks of an assignment, also the hidden ones."""
    files = sorted(assignment.checks.glob("*.py"))
    return _collected(assignment.checks, tuple((path.name, path.read_bytes()) for path in files))


@cache
def _collected(folder: Path, _content: tuple[tuple[str, bytes], ...]) -> list[Check]:
    return collect(folder)


def part_points(assignment: Assignment) -> dict[str, float]:
    """How many points the checks of each exercise give."""
    points: dict[str, float] = {}
    for check in checks_of(assignment):
        points[check.part] = points.get(check.part, 0.0) + check.points
    return points


def reference_program(assignment: Assignment) -> dict[str, str]:
    """The reference solution, with the given files that it imports."""
    files = {path.name: path.read_text("utf-8") for path in assignment.scripts}
    if assignment.hands_in_notebook:
        files |= program(assignment.name, read_notebook(solved(assignment)).cells)
    return files | assignment.given_texts()


def stub_program(assignment: Assignment, name: str) -> dict[str, str]:
    """What students start from in the handed-in file `name`."""
    if name.endswith(".ipynb"):
        return program(assignment.name, read_notebook(released(assignment)).cells)
    return {name: student_version((assignment.folder / name).read_text("utf-8"), name)}


def solved(assignment: Assignment) -> str:
    """The notebook of a student who has written exactly the reference solution."""
    return _notebook("solved_notebook", *_source(assignment))


def released(assignment: Assignment) -> str:
    """The notebook that students are given."""
    return _notebook("student_notebook", *_source(assignment))


def _source(assignment: Assignment) -> tuple[str, tuple[tuple[str, float], ...]]:
    assert assignment.notebook
    return assignment.notebook.read_text("utf-8"), tuple(part_points(assignment).items())


@cache
def _notebook(form: str, script: str, points: tuple[tuple[str, float], ...]) -> str:
    from autograder.release import notebooks  # nbgrader takes seconds to import

    text: str = getattr(notebooks, form)(script, dict(points))
    return text
