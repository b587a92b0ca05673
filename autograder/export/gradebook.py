"""nbgrader: writes marks into its gradebook, cell by cell, and notebooks into `autograded/`, with nbgrader's API.

The assignment must be in the gradebook already (`nbgrader generate_assignment`). An autograded cell belongs to the part
whose name is the end of its own name: `test-3-2a` belongs to part 3.2a. It gets the same fraction of its points as the
part. Manually graded cells keep their marks and comments. As in nbgrader, a missing answer gets no points.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.api import Assignment, Gradebook, GradeCell, MissingEntry

from autograder.export import autograded
from autograder.export.written_answers import WrittenAnswers, grade_id, read_answers
from autograder.late import Lateness, with_penalty
from autograder.results import Result


@dataclass(frozen=True)
class _Class:
    """The results of one assignment, with its cells in the gradebook and its released notebooks."""

    name: str
    results: list[Result]
    cells: dict[str, GradeCell]  # the autograded cell of each part
    notebooks: dict[str, NotebookNode]  # as released, by name


def write(
    classes: list[list[Result]],
    database: Path,
    submitted: Path,
    late: dict[tuple[str, str], Lateness],
) -> list[Path]:
    """Write the marks of each class into the gradebook, and the notebooks next to it; return the paths written.

    The scores are those of grading, and `late` holds the penalties. Raises ValueError, before anything is written, if
    there is no gradebook, an assignment is not in it or not released, or its autograded cells and the parts of the
    results do not match one to one.
    """
    if not database.is_file():
        raise ValueError(f"no gradebook at {database}: run “nbgrader generate_assignment” first")
    for result in (result for results in classes for result in results):
        if not (folder := submitted / result.student / result.assignment).is_dir():
            raise ValueError(f"there is no {folder}: name the folder of the graded submissions with --submitted")
    course = database.absolute().parent
    written = [database]
    with Gradebook(f"sqlite:///{database.absolute()}") as gradebook:
        for each in [_class(gradebook, results, course / "assignments") for results in classes]:
            _write_due(gradebook, each, late)
            for result in each.results:
                came = submitted / result.student / each.name
                answers = {
                    name: read_answers(came / f"{name}.ipynb", released) for name, released in each.notebooks.items()
                }
                lateness = late.get((each.name, result.student))
                _write_result(gradebook, result, each, answers, lateness)
                folder = course / "autograded" / result.student / each.name
                time = lateness.submitted if lateness else None
                autograded.write(folder, _notebooks(result, each, answers, lateness), came, time)
                written.append(folder)
    return written


def _class(gradebook: Gradebook, results: list[Result], releases: Path) -> _Class:
    name = results[0].assignment
    try:
        assignment = gradebook.find_assignment(name)
    except MissingEntry:
        raise ValueError(
            f"the gradebook has no {name}: run “nbgrader generate_assignment {name}” first, or choose another"
            " assignment with --assignment"
        ) from None
    notebooks = {}
    for notebook in assignment.notebooks:
        path = releases / name / f"{notebook.name}.ipynb"
        if not path.is_file():
            raise ValueError(f"there is no {path}: run `autograder release {name}` first")
        notebooks[notebook.name] = nbformat.read(path, as_version=4)
    return _Class(name, results, _cells_of_parts(assignment, results), notebooks)


def _write_due(gradebook: Gradebook, each: _Class, late: dict[tuple[str, str], Lateness]) -> None:
    """Set the deadline of `course.toml` in the gradebook: nbgrader shows how late a submission is."""
    dues = {entry.due for (name, _), entry in late.items() if name == each.name and entry.due is not None}
    if dues:
        gradebook.update_or_create_assignment(each.name, duedate=_naive(min(dues)))


def _write_result(
    gradebook: Gradebook, result: Result, each: _Class, answers: dict[str, WrittenAnswers], late: Lateness | None
) -> None:
    gradebook.update_or_create_student(result.student)
    when = {"timestamp": _naive(late.submitted)} if late and late.submitted else {}
    submission = gradebook.update_or_create_submission(each.name, result.student, **when)
    for part, cell in each.cells.items():
        checks = [check for check in result.checks if check.part == part]
        most = sum(check.max_points for check in checks)
        got = sum(check.points for check in checks)
        grade = gradebook.find_grade(cell.name, cell.notebook.name, each.name, result.student)
        grade.auto_score = cell.max_score * got / most if most else 0.0
        # As in nbgrader, a manual mark has to be reviewed after grading again.
        grade.needs_manual_grade = grade.manual_score is not None
    for name, given in answers.items():
        _write_answers(gradebook, result, each, name, given)
    gradebook.db.commit()
    # nbgrader subtracts penalties per notebook, and the first one gets the whole penalty. The penalty is a fraction of
    # the score, which includes manually graded answers.
    share = 1 - with_penalty(result, late).score / result.score if result.score else 0.0
    for n, notebook in enumerate(submission.notebooks):
        notebook.late_submission_penalty = round(share * submission.score, 6) if n == 0 and share > 1e-9 else None
    gradebook.db.commit()


def _write_answers(gradebook: Gradebook, result: Result, each: _Class, notebook: str, answers: WrittenAnswers) -> None:
    """Give a missing answer no points and a comment, and mark the others for manual grading."""
    autograded_cells = {cell.name for cell in each.cells.values()}
    for cell in each.notebooks[notebook].cells:
        about = cell.metadata.get("nbgrader", {})
        name = grade_id(cell)
        if not about.get("solution"):
            continue
        is_given = name in answers.texts
        comment = gradebook.find_comment(name, notebook, each.name, result.student)
        comment.auto_comment = None if is_given else "No response."
        if about.get("grade") and name not in autograded_cells:
            grade = gradebook.find_grade(name, notebook, each.name, result.student)
            was_empty = grade.auto_score is not None
            grade.auto_score = None if is_given else 0.0
            if not is_given:
                grade.needs_manual_grade = grade.manual_score is not None
            elif was_empty or grade.manual_score is None:
                grade.needs_manual_grade = True


def _notebooks(
    result: Result, each: _Class, answers: dict[str, WrittenAnswers], late: Lateness | None
) -> dict[str, str]:
    notes = [*(late.sentences if late else []), *result.flags]
    if result.confined is False:
        notes.append("Graded without the sandbox: this mark is provisional.")
    parts = {cell.name: part for part, cell in each.cells.items()}
    for name in each.notebooks:
        # If the notebook is the program, the flags from grading already list the repairs.
        if any(flag.startswith(f"{name}.ipynb: ") for flag in result.flags):
            answers[name].remarks.clear()
    return {
        name: autograded.graded_notebook(released, answers[name], result, parts, notes)
        for name, released in each.notebooks.items()
    }


def _naive(time: datetime) -> datetime:
    """Return a time as nbgrader stores it: in UTC, without a time zone."""
    return time.astimezone(UTC).replace(tzinfo=None)


def _cells_of_parts(assignment: Assignment, results: list[Result]) -> dict[str, GradeCell]:
    """Return the autograded cell of each part that has points."""
    parts = list(dict.fromkeys(check.part for result in results for check in result.checks if check.max_points > 0))
    cells: dict[str, GradeCell] = {}
    problems = []
    for cell in _autograded_cells(assignment):
        fitting = [part for part in parts if _belongs(cell.name, part)]
        part = max(fitting, key=len, default=None)
        if part is None:
            problems.append(f"cell {cell.name} does not belong to any part")
        elif part in cells:
            problems.append(f"cells {cells[part].name} and {cell.name} both belong to part {part}")
        else:
            cells[part] = cell
    problems += [f"part {part} has no cell" for part in parts if part not in cells]
    if problems:
        raise ValueError(f"the gradebook does not match the results of {assignment.name}: {'; '.join(problems)}")
    return cells


def _autograded_cells(assignment: Assignment) -> list[GradeCell]:
    """Return the tested cells: code cells with points that are not solutions. All others are graded manually."""
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
    """Whether the name of the cell ends with the words of the name of the part."""
    words, last = _words(cell), _words(part)
    return bool(last) and words[-len(last) :] == last


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())
