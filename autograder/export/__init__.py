"""Exports marks from the result files to other systems.

`csv`, `canvas`, `moodle` and `gradescope` write files into a folder. `nbgrader` writes marks into an existing gradebook
and notebooks, which formgrader shows, into the folder `autograded/`. The late policy of the course (`course.toml`)
changes the exported scores, but not the result files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from autograder.export import canvas, gradescope, moodle, plain
from autograder.export.known import Known
from autograder.late import of_results, with_penalty
from autograder.results import Result, assignments_in, read_results, read_timings, write_atomically
from autograder.text import on_one_line

# Takes the results of one assignment, with late penalties applied, and returns the content of files by relative path.
Exporter = Callable[[list[Result], Known], dict[str, bytes]]

_FILES: dict[str, Exporter] = {
    "csv": plain.files,
    "canvas": canvas.files,
    "moodle": moodle.files,
    "gradescope": gradescope.files,
}
FORMATS = (*_FILES, "nbgrader")


def export(
    results_dir: Path,
    to: str,
    out: Path,
    *,
    submitted: Path | None = None,
    course: Path | None = None,
    people: dict[str, dict[str, str]] | None = None,
    say: Callable[[str], None] = lambda remark: None,
) -> list[Path]:
    """Write the marks of all assignments in `results_dir`, and return the paths written.

    `out` is a folder, or for "nbgrader" the gradebook (`gradebook.db`) or its folder. `submitted` is the folder of the
    submissions, with their times; for "nbgrader" it defaults to `submitted` in the folder of the gradebook. `course` is
    the folder with the late policy; without it, no penalties apply. `people` holds the roster's columns by student.
    `say` is called with each remark on a time of submission.

    Raises ValueError if the format is unknown, there are no results, or the results do not match the gradebook.
    """
    if to not in FORMATS:
        raise ValueError(f"cannot export to {to!r}: choose one of {', '.join(FORMATS)}")
    assignments = assignments_in(results_dir)
    if not assignments:
        raise ValueError(f"no results in {results_dir}: run “autograder grade” first")
    classes = [read_results(results_dir, assignment) for assignment in assignments]
    database = out / "gradebook.db" if out.is_dir() else out
    if to == "nbgrader" and submitted is None:
        submitted = database.parent / "submitted"
    everyone = [result for results in classes for result in results]
    late = of_results(everyone, submitted, course) if course else {}
    for (assignment, student), entry in sorted(late.items()):
        for remark in entry.remarks:
            say(f"{on_one_line(student)}, {assignment}: {remark}")
    if to == "nbgrader":
        # Importing nbgrader takes seconds, and the other formats do not need it.
        from autograder.export import gradebook

        assert submitted is not None
        return gradebook.write(classes, database, submitted, late)
    written = []
    for results in classes:
        timings = {
            result.student: found
            for result in results
            if (found := read_timings(results_dir, result.assignment, result.student)) is not None
        }
        of_class = {student: entry for (name, student), entry in late.items() if name == results[0].assignment}
        counting = [with_penalty(result, of_class.get(result.student)) for result in results]
        for name, content in _FILES[to](counting, Known(timings, of_class, people or {})).items():
            write_atomically(out / name, content)
            written.append(out / name)
    return written
