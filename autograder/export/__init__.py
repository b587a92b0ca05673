"""Marks for other systems, from the result files alone.

`csv`, `canvas`, `moodle` and `gradescope` write files into a folder; `nbgrader` writes into an existing
gradebook.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from autograder.export import canvas, gradescope, moodle, plain
from autograder.results import Result, Timings, assignments_in, read_results, read_timings, write_atomically

Exporter = Callable[[list[Result], dict[str, Timings]], dict[str, bytes]]

# Each takes one class and its timings by student, and gives the content of its files by relative path.
_FILES: dict[str, Exporter] = {
    "csv": plain.files,
    "canvas": canvas.files,
    "moodle": moodle.files,
    "gradescope": gradescope.files,
}
FORMATS = (*_FILES, "nbgrader")


def export(results_dir: Path, to: str, out: Path) -> list[Path]:
    """Write the marks of all assignments in `results_dir`, and return the paths written.

    `out` is a folder; for "nbgrader" it is the gradebook (`gradebook.db`) or the folder that holds it.
    Raises ValueError for an unknown format, where there are no results, or where they do not fit.
    """
    if to not in FORMATS:
        raise ValueError(f"cannot export to {to!r}: choose one of {', '.join(FORMATS)}")
    assignments = assignments_in(results_dir)
    if not assignments:
        raise ValueError(f"no results in {results_dir}: run “autograder grade” first")
    classes = [read_results(results_dir, assignment) for assignment in assignments]
    if to == "nbgrader":
        # nbgrader takes seconds to import, and the other formats do without it.
        from autograder.export import gradebook

        return [gradebook.write(classes, out / "gradebook.db" if out.is_dir() else out)]
    written = []
    for results in classes:
        timings = {
            result.student: found
            for result in results
            if (found := read_timings(results_dir, result.assignment, result.student)) is not None
        }
        for name, content in _FILES[to](results, timings).items():
            write_atomically(out / name, content)
            written.append(out / name)
    return written
