"""Notebooks: converts a jupytext percent script to the instructor's and the student's notebook for nbgrader.

The header of a cell contains nbgrader's metadata, without default values::

    # %% nbgrader={"grade_id": "test-3-2a", "grade": true, "locked": true}
    # %% [markdown] nbgrader={"grade_id": "answer-3-1a", "grade": true, "solution": true, "points": 2}

A tested cell belongs to the part in its name and has the points of the part's checks. Solutions in code are written as
in ``.py`` files: ``### BEGIN SOLUTION 3.2a``, the TODO for students, the solution, ``### END SOLUTION``. Their stubs
are also the same as in ``.py`` files (`autograder.release.stubs`).
"""

from typing import Any

import jupytext
import nbformat
from nbformat import NotebookNode
from nbgrader.converters import GenerateAssignment
from nbgrader.nbgraderformat import MetadataValidator, ValidationError
from nbgrader.preprocessors import ClearSolutions, SaveCells
from nbgrader.utils import is_solution

from autograder.release.stubs import BEGIN_SOLUTION, student_version

METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
DEFAULTS = {"schema_version": 3, "grade": False, "solution": False, "locked": False, "task": False}

# For `nbgrader autograde`: replaces the students' `check_part` by one that also runs the hidden checks.
ALL_CHECKS = """\
### BEGIN HIDDEN TESTS
from autograder.grade.nbgrader_cells import check_part
### END HIDDEN TESTS
"""


class MakeStubs(ClearSolutions):
    """nbgrader's preprocessor that removes solutions; stubs in code name their exercise, as in ``.py`` files."""

    def preprocess_cell(
        self, cell: NotebookNode, resources: dict[str, Any], cell_index: int
    ) -> tuple[NotebookNode, dict[str, Any]]:
        """Remove the solution from a cell. Raises ValueError for markers that do not match."""
        if cell.cell_type == "code" and is_solution(cell) and BEGIN_SOLUTION in cell.source:
            cell.source = student_version(cell.source, f"cell {cell.id}").rstrip("\n")
            return cell, resources
        cleared: tuple[NotebookNode, dict[str, Any]] = super().preprocess_cell(cell, resources, cell_index)
        return cleared


# The steps of `nbgrader generate_assignment`, which nbgrader_config.py also sets, so that both make the same notebook.
PREPROCESSORS = [MakeStubs if step is ClearSolutions else step for step in GenerateAssignment().preprocessors]


def full_notebook(source: str, points: dict[str, float]) -> str:
    """Return the instructor's notebook as JSON, for nbgrader's source folder; `points` maps tested parts to points.

    Raises ValueError if the metadata is invalid for nbgrader, or parts and tested cells do not match one to one.
    """
    notebook = _notebook(source, points)
    for cell in notebook.cells:
        about = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "code" and about.get("grade") and not about.get("solution"):
            cell.source = ALL_CHECKS + cell.source
    return _text(notebook)


def solved_notebook(source: str, points: dict[str, float]) -> str:
    """Return the notebook with the solutions of the reference, as JSON."""
    return _text(_notebook(source, points))


def student_notebook(source: str, points: dict[str, float]) -> str:
    """Return the released notebook as JSON: the output of `nbgrader generate_assignment`, without a database."""
    notebook = nbformat.reads(full_notebook(source, points), as_version=4)
    try:
        for step in PREPROCESSORS:
            if step is not SaveCells:
                notebook, _ = step().preprocess(notebook, {})
    except RuntimeError as error:
        raise ValueError(f"nbgrader refuses the notebook: {error}") from error
    return _text(notebook)


def _notebook(source: str, points: dict[str, float]) -> NotebookNode:
    """Convert the script to a notebook with complete metadata and deterministic ids."""
    notebook = jupytext.reads(source, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    untested = dict(points)
    for position, cell in enumerate(notebook.cells):
        about = cell.metadata.get("nbgrader")
        cell.metadata = NotebookNode()
        cell.id = f"cell-{position:03d}"
        if about is not None:
            cell.metadata.nbgrader = about = NotebookNode(DEFAULTS | about)
            cell.id = about.get("grade_id", cell.id)
            if cell.cell_type == "code" and about.grade and not about.solution:
                about.points = untested.pop(_part(cell.id, untested))
    if untested:
        cells = ", ".join(f"`{_test_id(part)}`" for part in untested)
        raise ValueError(f"The notebook does not test {', '.join(untested)}: add a cell with the grade_id {cells}.")
    try:
        MetadataValidator().validate_nb(notebook)
    except ValidationError as error:
        raise ValueError(f"The notebook's cells are not valid for nbgrader: {error.message}.") from error
    nbformat.validate(notebook)
    return notebook


def _part(grade_id: str, parts: dict[str, float]) -> str:
    """Return the part of a tested cell: 3.2a for `test-3-2a`."""
    for part in parts:
        if grade_id == _test_id(part):
            return part
    raise ValueError(
        f"The tested cell {grade_id!r} does not belong to a part with points, or is not the only one for its part."
    )


def _test_id(part: str) -> str:
    return f"test-{part.replace('.', '-')}"


def _text(notebook: NotebookNode) -> str:
    return nbformat.writes(notebook) + "\n"
