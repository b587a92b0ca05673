"""The gradebook of a course: one row for each student, one column for each assignment."""

from collections.abc import Mapping
from dataclasses import dataclass

from autograder.late import Lateness
from autograder.results import Result


@dataclass(frozen=True, slots=True)
class Entry:
    """A mark that counts, and what is known about its time of submission."""

    result: Result
    late: Lateness | None


@dataclass(frozen=True, slots=True)
class Row:
    """The marks of one student, in the order of the assignments; None where there is no result."""

    student: str
    name: str  # empty if it is not known
    entries: tuple[Entry | None, ...]
    total: float
    fraction: float  # of the full marks of all assignments


def gradebook(
    classes: Mapping[str, list[Result]], lateness: Mapping[tuple[str, str], Lateness], names: Mapping[str, str]
) -> tuple[list[Row], float]:
    """Return the rows by student, and the sum of the full marks. A missing result counts as no points.

    `names` maps ids to names, which may be empty; each of these students has a row.
    """
    found = {(name, result.student): result for name, results in classes.items() for result in results}
    most = sum(max(result.max_score for result in results) for results in classes.values())
    rows = []
    for student in sorted({student for _, student in found} | names.keys()):
        entries = tuple(
            Entry(found[name, student], lateness.get((name, student))) if (name, student) in found else None
            for name in classes
        )
        total = sum(entry.result.score for entry in entries if entry)
        rows.append(Row(student, names.get(student, ""), entries, total, min(1.0, total / most) if most else 0.0))
    return rows, most
