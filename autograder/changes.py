"""Comparison of results: marks that a regrade has changed and why, and submissions that are identical."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from autograder.results import Result, read_result, result_path
from autograder.text import number, on_one_line

_CHECKS_SHOWN = 4


@dataclass(frozen=True)
class Change:
    """One mark that has changed."""

    student: str
    before: Result
    after: Result

    @property
    def reasons(self) -> list[str]:
        """What differs between the two gradings and can be the reason."""
        pairs = {
            "submission": (self.before.submission_sha256, self.after.submission_sha256),
            "checks": (self.before.checks_sha256, self.after.checks_sha256),
            "seed": (self.before.seed, self.after.seed),
            "sandbox": (self.before.confined, self.after.confined),
        }
        return [what for what, (old, new) in pairs.items() if old != new]

    @property
    def checks(self) -> list[tuple[str, float | None, float | None]]:
        """Each check that gives other points: its id, the points before and after, or None."""
        old, new = ({check.id: check.points for check in result.checks} for result in (self.before, self.after))
        return [
            (id_, old.get(id_), new.get(id_)) for id_ in dict.fromkeys([*new, *old]) if old.get(id_) != new.get(id_)
        ]


def results_before(results_dir: Path, assignment: str, students: Iterable[str]) -> dict[str, Result]:
    """The results that exist before grading, without damaged ones, which are graded again."""
    found = {}
    for student in students:
        path = result_path(results_dir, assignment, student)
        try:
            found[student] = read_result(path)
        except (FileNotFoundError, ValueError):
            continue
    return found


def changes(before: Mapping[str, Result], after: Iterable[Result]) -> list[Change]:
    """The marks that differ, by student. A student without an earlier result is not a change."""
    found = [Change(result.student, before[result.student], result) for result in after if result.student in before]
    return sorted((change for change in found if _mark(change.before) != _mark(change.after)), key=lambda c: c.student)


def identical(results: Iterable[Result]) -> list[list[str]]:
    """Groups of students whose submissions are identical, byte by byte; submissions without points do not count."""
    groups: dict[str, list[str]] = {}
    for result in results:
        if result.score > 0:
            groups.setdefault(result.submission_sha256, []).append(result.student)
    return sorted(sorted(group) for group in groups.values() if len(group) > 1)


def changes_table(found: list[Change]) -> Table:
    """The changes for the terminal."""
    table = Table(title="changed marks")
    for column in ("student", "before", "now", "because of another", "checks"):
        table.add_column(column)
    for change in found:
        checks = [f"{id_} {_points(old)} → {_points(new)}" for id_, old, new in change.checks]
        more = len(checks) - _CHECKS_SHOWN
        shown = checks[:_CHECKS_SHOWN] + ([f"and {more} more"] if more > 0 else [])
        cells = (
            change.student,
            _shown(change.before),
            _shown(change.after),
            ", ".join(change.reasons),
            "\n".join(shown),
        )
        table.add_row(*(_plain(cell) for cell in cells))
    return table


def _mark(result: Result) -> tuple[float, float]:
    return result.score, result.max_score


def _shown(result: Result) -> str:
    return f"{number(result.score)} / {number(result.max_score)}"


def _points(points: float | None) -> str:
    return "none" if points is None else number(points)


def _plain(cell: str) -> Text:
    """Text without markup of rich and without control characters of the terminal."""
    return Text("\n".join(on_one_line(line) for line in cell.split("\n")))
