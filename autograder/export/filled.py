"""Fills the marks into Canvas's gradebook or Moodle's grading worksheet, in the file that was downloaded.

Only the cells of the marks change: columns, order, separators, quotes, line ends and encoding stay as they were. The
platform can import the new file without any settings.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from autograder.collect.people import plain_name
from autograder.collect.roster import Download, Roster
from autograder.results import Result
from autograder.text import number

# Two marks are the same number of points up to this difference.
_TOLERANCE = 1e-6
# Columns of Moodle's worksheet, in English and German.
_GRADE = ("Grade", "Bewertung")
_MAXIMUM_GRADE = ("maximum grade", "bestwertung")


@dataclass(frozen=True)
class Filled:
    """The new file, with those who are not in the results, and those who are not in the file."""

    name: str
    content: bytes
    left: list[str]
    missing: list[str]


def fill(
    roster: Roster,
    download: Download,
    classes: list[list[Result]],
    titles: Mapping[str, str],
    columns: Mapping[str, str],
    scale: bool,
) -> Filled:
    """Return the download with the marks of the classes.

    `titles` are those of the assignments, and `columns` the names of their columns where they cannot be found. With
    `scale`, marks are scaled to the full mark of the platform. Raises ValueError if a column is not found, the full
    marks differ, or two results have the same row.
    """
    values: dict[tuple[int, int], str] = {}
    missing: list[str] = []
    for results in classes:
        name = results[0].assignment
        column = _column(download, name, titles.get(name, name), columns.get(name))
        taken: dict[int, str] = {}
        for result in results:
            student = roster.known_as(result.student)
            if student is None:
                missing.append(result.student)
                continue
            row = download.rows[student]
            if row in taken:
                raise ValueError(
                    f"{download.path}, row {row}: the results of {taken[row]} and {result.student} for {name} both"
                    " belong to this row. Delete one of them."
                )
            taken[row] = result.student
            full, comma = _full_mark(download, row, column)
            if full is not None and abs(full - result.max_score) > _TOLERANCE and not scale:
                raise ValueError(
                    f"The full mark of {name} is {number(result.max_score)}, but {number(full)} in {download.path}."
                    " Change it there and download the file again, or scale the marks with --scale."
                )
            score = result.score * full / result.max_score if scale and full and result.max_score else result.score
            written = number(score)
            values[row, column] = written.replace(".", ",") if comma else written
    rows = {row for row, _ in values}
    left = [student for student, row in download.rows.items() if row not in rows]
    filled = f"{download.path.stem}.filled{download.path.suffix}"
    return Filled(filled, download.table.filled(values), left, sorted(set(missing)))


def _column(download: Download, assignment: str, title: str, given: str | None) -> int:
    """Return the position of the column with the marks of an assignment."""
    header = download.table.header
    if given is None and download.platform == "moodle":
        given = next((name for name in _GRADE if name in header), _GRADE[0])
    if given is not None:
        fitting = [n for n, name in enumerate(header) if given in (name, _without_number(name))]
        wanted = repr(given)
    else:
        # The first four or five columns say who a student is.
        names = {plain_name(assignment), plain_name(title)}
        first = header.index("Section") + 1
        fitting = [n for n in range(first, len(header)) if plain_name(_without_number(header[n])) in names]
        wanted = f"{assignment!r} or {title!r}" if title != assignment else repr(assignment)
    if len(fitting) != 1:
        problem = "several columns" if fitting else "no column"
        raise ValueError(
            f"{download.path} has {problem} {wanted}: give the title of the column, as it is in the first row, with"
            f" --column {assignment}=TITLE, or leave this assignment out with --assignment."
        )
    return fitting[0]


def _without_number(name: str) -> str:
    """Return the name of a column of Canvas without the number of the assignment: “Sheet 1 (99)”."""
    return re.sub(r"\s*\(\d+\)$", "", name)


def _full_mark(download: Download, row: int, column: int) -> tuple[float | None, bool]:
    """Return the full mark, or None if the file does not have it, and whether numbers have a decimal comma."""
    table = download.table
    if download.platform == "moodle":
        line = table.lines[row - 1]
        at = next((n for n, name in enumerate(table.header) if name.casefold() in _MAXIMUM_GRADE), len(line))
    else:
        line = next((line for line in table.lines if "Points Possible" in line[0].value), [])
        at = column
    written = line[at].value if at < len(line) else ""
    match = re.fullmatch(r"(\d+)(?:([.,])(\d+))?", written)
    if not match:
        return None, False
    return float(f"{match[1]}.{match[3] or 0}"), match[2] == ","
