"""Geometry of the charts on the class page; the templates draw them as SVG.

A strip is one row of cells, one per student, best mark first. The height of a cell shows the same as its colour: a
passed check fills the row, a failed check half of it, and a check that was not run or is not implemented yet is a line
at the bottom.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autograder.report.statistics import CheckStatistics
from autograder.results import Result
from ebmcourse.checking.outcome import Outcome

STRIP_WIDTH = 480
STRIP_HEIGHT = 20
MARKS_HEIGHT = 44
NAME_SHOWN = 9  # number of characters of a student's name in the map
HISTOGRAM_WIDTH = 400
HISTOGRAM_HEIGHT = 130
_NAMED_PITCH = 15  # wide enough for a line of small text

_CELL_HEIGHT = {
    "passed": STRIP_HEIGHT,
    "failed": STRIP_HEIGHT / 2,
    "error": STRIP_HEIGHT / 2,
    "timeout": STRIP_HEIGHT / 2,
    "memory": STRIP_HEIGHT / 2,
    "skipped": 2,
    "unwritten": 2,
}


@dataclass(frozen=True, slots=True)
class Cell:
    """A rectangle of a strip, with its result and check. `anchor` is the fragment of the check on the feedback page."""

    x: float
    y: float
    width: float
    height: float
    result: Result
    check: Outcome | None = None
    anchor: str = ""


@dataclass(frozen=True, slots=True)
class Strip:
    """A row of cells: those of passed checks are one SVG path, `passed`, the others are links.

    If `names` is true, the names of the students are shown below the cells.
    """

    width: float
    height: float
    passed: str
    cells: tuple[Cell, ...]
    names: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the histogram; `begins` is the lower end of its range, in percent of the full mark."""

    x: float
    y: float
    width: float
    height: float
    count: int
    begins: int


def class_strips(
    ranking: Sequence[Result],
    statistics: Sequence[CheckStatistics],
    anchors: Mapping[str, Mapping[str, str]],
) -> dict[str, Strip]:
    """Return a strip by check id, with cells in the order of `ranking`; `anchors` is by student, then check id."""
    pitch, width = _pitch(len(ranking))
    found = [{check.id: check for check in result.checks} for result in ranking]
    strips: dict[str, Strip] = {}
    for entry in statistics:
        passed: list[str] = []
        cells: list[Cell] = []
        for n, (result, checks) in enumerate(zip(ranking, found, strict=True)):
            check = checks.get(entry.id)
            if check is None:
                continue
            if check.passed:
                passed.append(f"M{n * pitch} 0h{width}v{STRIP_HEIGHT}h{-width}z")
                continue
            height = _CELL_HEIGHT[check.kind]
            anchor = anchors[result.student][check.id]
            cells.append(Cell(n * pitch, STRIP_HEIGHT - height, width, height, result, check, anchor))
        strips[entry.id] = Strip(len(ranking) * pitch, STRIP_HEIGHT, "".join(passed), tuple(cells))
    return strips


def mark_strip(ranking: Sequence[Result]) -> Strip:
    """Return the marks as columns in the order of `ranking`, with names if the columns are wide enough."""
    pitch, width = _pitch(len(ranking))
    cells = []
    for n, result in enumerate(ranking):
        height = max(1.0, round(MARKS_HEIGHT * result.fraction, 1))
        cells.append(Cell(n * pitch, round(MARKS_HEIGHT - height, 1), width, height, result))
    names = pitch >= _NAMED_PITCH
    longest = min(NAME_SHOWN, max((len(result.student) for result in ranking), default=0))
    height = MARKS_HEIGHT + (7 * longest + 9 if names else 0)
    return Strip(len(ranking) * pitch, height, "", tuple(cells), names)


def histogram_columns(counts: Sequence[int]) -> list[Column]:
    """Return columns that fill HISTOGRAM_WIDTH; the highest has HISTOGRAM_HEIGHT."""
    pitch = HISTOGRAM_WIDTH / len(counts)
    highest = max(1, *counts)
    columns = []
    for n, count in enumerate(counts):
        height = round(HISTOGRAM_HEIGHT * count / highest, 1)
        x, y = round(n * pitch + 1, 1), round(HISTOGRAM_HEIGHT - height, 1)
        columns.append(Column(x, y, pitch - 2, height, count, begins=round(100 * n / len(counts))))
    return columns


def _pitch(students: int) -> tuple[int, int]:
    """Return the distance between cells and their width; only wide cells have a gap between them."""
    pitch = max(4, min(40, STRIP_WIDTH // max(1, students)))
    return pitch, pitch - 1 if pitch >= 8 else pitch
