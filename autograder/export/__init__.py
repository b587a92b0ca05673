"""Exports marks from the result files to other systems.

`csv`, `canvas`, `moodle` and `gradescope` write files into a folder. With a download of Canvas or Moodle as the roster,
`canvas` and `moodle` fill the marks into a copy of it. `nbgrader` writes marks into an existing gradebook
and notebooks, which formgrader shows, into the folder `autograded/`. The late policy of the course (`course.toml`)
changes the exported scores, but not the result files.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from autograder import Failure
from autograder.collect import Roster
from autograder.export import canvas, gradescope, moodle, plain
from autograder.export.filled import fill
from autograder.export.known import Known
from autograder.export.moodle_feedback import feedback_zip
from autograder.late import of_results, with_penalty, without_result
from autograder.report.sheet import read_sheet
from autograder.report.unmatched import not_graded, not_in_roster
from autograder.results import Result, assignments_in, read_results, read_timings, write_atomically
from autograder.text import listed

# Takes the results of one assignment, with late penalties applied, and returns the content of files by relative path.
Exporter = Callable[[list[Result], Known], dict[str, bytes]]

_FILES: dict[str, Exporter] = {
    "csv": plain.files,
    "canvas": canvas.files,
    "moodle": moodle.files,
    "gradescope": gradescope.files,
}
FORMATS = (*_FILES, "nbgrader")
_NAMES_SHOWN = 20


def export(
    results_dir: Path,
    to: str,
    out: Path,
    *,
    submitted: Path | None = None,
    course: Path | None = None,
    roster: Roster | None = None,
    assignment: str = "",
    columns: Mapping[str, str] | None = None,
    scale: bool = False,
    say: Callable[[str], None] = lambda remark: None,
) -> list[Path]:
    """Write the marks of one or all assignments in `results_dir`, and return the paths written.

    `out` is a folder, or for "nbgrader" the gradebook (`gradebook.db`) or its folder. `submitted` is the folder of the
    submissions, with their times; for "nbgrader" it defaults to `submitted` in the folder of the gradebook. `course` is
    the folder with the late policy; without it, no penalties apply. `say` is called with each remark, for example on a
    time of submission.

    If the `roster` is a download of the platform, the marks are filled into a copy of it, in the columns of the
    assignments; `columns` names them where they have other names, and with `scale` the marks are scaled to the full
    marks of the platform.

    Raises ValueError if an argument is wrong, there are no results, or the results do not match the gradebook or the
    download. Raises Failure, after writing, if results have no row in the download.
    """
    if to not in FORMATS:
        raise ValueError(f"cannot export to {to!r}: choose one of {', '.join(FORMATS)}")
    if to != "nbgrader" and submitted is not None and not submitted.is_dir():
        raise ValueError(f"There is no folder {submitted}: --submitted is the folder of the graded submissions.")
    assignments = assignments_in(results_dir)
    if not assignments:
        raise ValueError(f"There are no results in {results_dir}: run `autograder grade` first.")
    if assignment and assignment not in assignments:
        raise ValueError(
            f"There are no results of {assignment!r} in {results_dir}; there are: {', '.join(assignments)}."
        )
    if unknown := sorted((columns or {}).keys() - assignments):
        raise ValueError(f"There are no results of {unknown[0]!r}, which --column names.")
    # Late days are shared by all assignments, so all results are read.
    everyone = [read_results(results_dir, name) for name in assignments]
    classes = [results for results in everyone if assignment in ("", results[0].assignment)]
    database = out / "gradebook.db" if out.is_dir() else out
    if to == "nbgrader" and submitted is None:
        submitted = database.parent / "submitted"
    results_of_course = [result for results in everyone for result in results]
    late = of_results(results_of_course, submitted, course) if course else {}
    graded = {results[0].assignment: [result.student for result in results] for results in everyone}
    for table, students in without_result(graded, course, assignment).items() if course else ():
        say(f"No result, but in {table} of course.toml: {listed(students, _NAMES_SHOWN)}")
    said: dict[tuple[str, str], list[str]] = {}  # students by assignment and remark, which may concern a whole class
    for (name, student), entry in sorted(late.items()):
        for remark in entry.remarks if assignment in ("", name) else ():
            said.setdefault((name, remark), []).append(student)
    for (name, remark), students in said.items():
        say(f"{listed(students, _NAMES_SHOWN)}, {name}: {remark}")
    for name, students in not_graded(results_dir, submitted, course).items() if course else ():
        if assignment in ("", name):
            say(f"Handed in, but not graded, so not exported: {listed(students, _NAMES_SHOWN)} ({name})")
    if to == "nbgrader":
        # Importing nbgrader takes seconds, and the other formats do not need it.
        from autograder.export import gradebook

        assert submitted is not None
        return gradebook.write(classes, database, submitted, late)
    counting = [[with_penalty(result, late.get((result.assignment, result.student))) for result in c] for c in classes]
    if roster and roster.download and roster.download.platform == to:
        return _fill_in(roster, results_dir, counting, out, course, columns or {}, scale, say)
    if columns or scale:
        raise ValueError(f"--column and --scale need a download of {to.capitalize()} as the --roster.")
    people = roster.people if roster else {}
    if roster and (unknown := not_in_roster(results_dir, people, assignment)):
        say(f"Results of students who are not in the roster: {listed(unknown, _NAMES_SHOWN)}")
    written = []
    for results in counting:
        timings = {
            result.student: found
            for result in results
            if (found := read_timings(results_dir, result.assignment, result.student)) is not None
        }
        of_class = {student: entry for (name, student), entry in late.items() if name == results[0].assignment}
        for name, content in _FILES[to](results, Known(timings, of_class, people)).items():
            write_atomically(out / name, content)
            written.append(out / name)
    return written


def _fill_in(
    roster: Roster,
    results_dir: Path,
    classes: list[list[Result]],
    out: Path,
    course: Path | None,
    columns: Mapping[str, str],
    scale: bool,
    say: Callable[[str], None],
) -> list[Path]:
    assert roster.download
    names = [results[0].assignment for results in classes]
    if roster.download.platform == "moodle" and len(names) > 1:
        raise ValueError(
            f"A grading worksheet of Moodle has the marks of one assignment: choose it with --assignment {names[0]},"
            f" for example; there are results of {', '.join(names)}."
        )
    titles = {name: read_sheet(name, course).title for name in names} if course else {}
    filled = fill(roster, roster.download, classes, titles, columns, scale)
    path = out / filled.name
    write_atomically(path, filled.content)
    written = [path]
    if roster.download.platform == "moodle" and not roster.groups:
        written += _write_feedback(roster, results_dir, classes[0], out, say)
    if filled.left:
        say(f"No result, so the row stays as it was: {listed(filled.left, _NAMES_SHOWN)}")
    if filled.missing:
        raise Failure(
            f"{roster.download.path} has no row for these results, so {path} lacks them:"
            f" {listed(filled.missing, _NAMES_SHOWN)}. Their ids come from `autograder collect`; to find a row, an id"
            " must be the login name, mail address or number of the student in this file."
        )
    return written


def _write_feedback(
    roster: Roster, results_dir: Path, results: list[Result], out: Path, say: Callable[[str], None]
) -> list[Path]:
    """Write the zip file of the pages of feedback that Moodle imports, if there are any."""
    name = results[0].assignment
    content, lacking = feedback_zip(results_dir, results, roster)
    if lacking:
        students = listed(lacking, _NAMES_SHOWN)
        say(f"No page of feedback since the last grading ({name}; see `autograder report`): {students}")
    path = out / f"{name}.feedback.zip"
    if not content:
        path.unlink(missing_ok=True)  # it has the pages of an earlier grading
        return []
    write_atomically(path, content)
    return [path]
