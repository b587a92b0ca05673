"""The programs of an assignment, as file name -> text: the reference's, the stub's, and a submission's.

Where Python files are handed in, the program is these files. Where a notebook is, the program is made of its cells
(`ebmcourse.checking.program`), after it has been mended.
"""

from __future__ import annotations

from functools import cache

from autograder.assignment import Assignment, part_points
from autograder.mending import mend
from autograder.stubs import student_version
from ebmcourse.checking.program import program, read_notebook


def reference_program(assignment: Assignment) -> dict[str, str]:
    """The reference solution, with the given files that it imports."""
    files = {path.name: path.read_text("utf-8") for path in assignment.scripts}
    if assignment.hands_in_notebook:
        files |= program(assignment.name, read_notebook(solved(assignment)).cells)
    return files | assignment.given_texts()


def stub_program(assignment: Assignment, name: str) -> dict[str, str]:
    """What students are given to start from in the place of the handed-in file `name`."""
    if name.endswith(".ipynb"):
        return program(assignment.name, read_notebook(released(assignment)).cells)
    return {name: student_version((assignment.folder / name).read_text("utf-8"), name)}


def submitted_program(assignment: Assignment, text: str) -> tuple[dict[str, str], list[str]]:
    """The program in a notebook that was handed in, and a sentence about everything in it that was mended.

    Raises ValueError, completing “it is …”, where the notebook cannot be read.
    """
    cells, remarks = mend(read_notebook(released(assignment)), read_notebook(text))
    return program(assignment.name, cells), remarks


def solved(assignment: Assignment) -> str:
    """The notebook of a student who has written just what the reference says."""
    return _notebook("solved_notebook", *_source(assignment))


def released(assignment: Assignment) -> str:
    """The notebook that students are given."""
    return _notebook("student_notebook", *_source(assignment))


def _source(assignment: Assignment) -> tuple[str, tuple[tuple[str, float], ...]]:
    assert assignment.notebook
    return assignment.notebook.read_text("utf-8"), tuple(part_points(assignment).items())


@cache
def _notebook(form: str, script: str, points: tuple[tuple[str, float], ...]) -> str:
    from autograder import notebooks  # nbgrader takes seconds to import

    text: str = getattr(notebooks, form)(script, dict(points))
    return text
