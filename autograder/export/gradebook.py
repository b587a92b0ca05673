"""nbgrader: marks into its gradebook, cell by cell, through nbgrader's own API.

The assignment must be in the gradebook already (`nbgrader generate_assignment`). An autograded cell belongs
to the part whose name ends its own: `test-3-2a` to part 3.2a. It gets the share of its points that the
student got of the part's. Cells that a person grades are left as they are, marks and comments included.
"""

from __future__ import annotations

import re
from pathlib import Path

from nbgrader.api import Assignment, Gradebook, GradeCell, MissingEntry

from autograder.results import Result


def write(classes: list[list[Result]], database: Path) -> Path:
    """Write the marks of each class into the gradebook file, and return its path.

    Raises ValueError where there is no gradebook, an assignment is not in it, or its autograded cells and the
    parts of the results do not belong to each other one to one. Nothing is written then.
    """
    if not database.is_file():
        raise ValueError(f"no gradebook at {database}: run “nbgrader generate_assignment” first")
    with Gradebook(f"sqlite:///{database.absolute()}") as gradebook:
        cells = {results[0].assignment: _cells_of_parts(gradebook, results) for results in classes}
        for results in classes:
            for result in results:
                _write_result(gradebook, result, cells[result.assignment])
    return database


def _write_result(gradebook: Gradebook, result: Result, cells: dict[str, GradeCell]) -> None:
    gradebook.update_or_create_student(result.student)
    submission = gradebook.update_or_create_submission(result.assignment, result.student)
    for part, cell in cells.items():
        checks = [check for check in result.checks if check.part == part]
        most = sum(check.max_points for check in checks)
        got = sum(check.points for check in checks)
        grade = gradebook.find_grade(cell.name, cell.notebook.name, result.assignment, result.student)
        grade.auto_score = cell.max_score * got / most if most else 0.0
        # As nbgrader does it: a mark that a person has given is theirs to look at again.
        grade.needs_manual_grade = grade.manual_score is not None
    # nbgrader subtracts penalties per notebook; the total takes all of ours wherever it stands.
    penalty = sum(check.points for check in result.checks) - result.score
    for n, notebook in enumerate(submission.notebooks):
        notebook.late_submission_penalty = penalty if n == 0 and penalty > 1e-9 else None
    gradebook.db.commit()


def _cells_of_parts(gradebook: Gradebook, results: list[Result]) -> dict[str, GradeCell]:
    """The autograded cell of each part that carries points."""
    name = results[0].assignment
    try:
        assignment = gradebook.find_assignment(name)
    except MissingEntry:
        raise ValueError(f"the gradebook has no {name}: run “nbgrader generate_assignment {name}” first") from None
    parts = list(dict.fromkeys(check.part for result in results for check in result.checks if check.max_points > 0))
    cells: dict[str, GradeCell] = {}
    problems = []
    for cell in _autograded_cells(assignment):
        fitting = [part for part in parts if _belongs(cell.name, part)]
        part = max(fitting, key=len, default=None)
        if part is None:
            problems.append(f"cell {cell.name} belongs to no part")
        elif part in cells:
            problems.append(f"cells {cells[part].name} and {cell.name} both belong to part {part}")
        else:
            cells[part] = cell
    problems += [f"part {part} has no cell" for part in parts if part not in cells]
    if problems:
        raise ValueError(f"the gradebook does not fit the results of {name}: {'; '.join(problems)}")
    return cells


def _autograded_cells(assignment: Assignment) -> list[GradeCell]:
    """Code cells with points that no student fills in: tests. The others are graded by a person."""
    found = []
    for notebook in assignment.notebooks:
        filled_in = {cell.name for cell in notebook.solution_cells}
        found += [
            cell
            for cell in notebook.grade_cells
            if cell.cell_type == "code" and cell.max_score > 0 and cell.name not in filled_in
        ]
    return sorted(found, key=lambda cell: (cell.notebook.name, cell.name))


def _belongs(cell: str, part: str) -> bool:
    """Whether the words of the part's name are the last words of the cell's."""
    words, last = _words(cell), _words(part)
    return bool(last) and words[-len(last) :] == last


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())
