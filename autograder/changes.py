"""Comparison of results: marks that changed when a class was graded again, and identical or different submissions."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from autograder.collect.groups import read_groups
from autograder.collect.ids import handed_in_together
from autograder.grade.fingerprint import difference
from autograder.results import Result, find_result
from autograder.text import number, on_one_line

_SHOWN = 4  # checks and reasons of each student


@dataclass(frozen=True)
class Change:
    """A mark that is different after grading again."""

    student: str
    before: Result
    after: Result

    def reasons(self, known: Mapping[str, dict[str, str]]) -> list[str]:
        """What changed between the two gradings and may be the reason.

        A result records one checksum of everything that belongs to grading; `known` says what it was made of
        (`autograder.grade.fingerprint`).
        """
        old, new = self.before.checks_sha256, self.after.checks_sha256
        grading = ["the checks, the reference, the limits or a package"]
        if old in known and new in known:
            grading = difference(known[old], known[new])
        pairs = (
            (["the submission"], self.before.submission_sha256, self.after.submission_sha256),
            (grading, old, new),
            (["the seed"], self.before.seed, self.after.seed),
            (["the use of the sandbox"], self.before.confined, self.after.confined),
        )
        return [reason for reasons, earlier, later in pairs if earlier != later for reason in reasons]

    @property
    def checks(self) -> list[tuple[str, float | None, float | None]]:
        """The checks whose points changed: id, points before and points after; None where there was no such check."""
        old, new = ({check.id: check.points for check in result.checks} for result in (self.before, self.after))
        return [
            (id_, old.get(id_), new.get(id_)) for id_ in dict.fromkeys([*new, *old]) if old.get(id_) != new.get(id_)
        ]


def results_before(results_dir: Path, assignment: str, students: Iterable[str]) -> dict[str, Result]:
    """Read the results that exist before grading; damaged ones are left out."""
    found = {student: find_result(results_dir, assignment, student) for student in students}
    return {student: result for student, result in found.items() if result}


def changes(before: Mapping[str, Result], after: Iterable[Result]) -> list[Change]:
    """Return the marks that differ, sorted by student; students without an earlier result are left out."""
    found = [Change(result.student, before[result.student], result) for result in after if result.student in before]
    return sorted((change for change in found if _mark(change.before) != _mark(change.after)), key=lambda c: c.student)


def identical(results: Iterable[Result], together: Collection[Collection[str]] = ()) -> list[list[str]]:
    """Return groups of students whose submissions are identical byte by byte, except submissions without points.

    Groups whose members are all in one of the groups `together`, which hand in together, are left out.
    """
    groups: dict[str, list[str]] = {}
    for result in results:
        if result.score > 0:
            groups.setdefault(result.submission_sha256, []).append(result.student)
    found = sorted(sorted(group) for group in groups.values() if len(group) > 1)
    return [group for group in found if not any({*group}.issubset(members) for members in together)]


def flags_of_class(results: list[Result], submitted: Path | None) -> Iterator[tuple[str, list[str]]]:
    """Yield sentences on submissions that are identical, or differ within a group, each with its students.

    The groups are those with which the submissions in the folder `submitted` were collected.
    """
    assignment = results[0].assignment
    for students in identical(results, handed_in_together(submitted, assignment) if submitted else ()):
        yield "These students handed in identical files.", students
    graded = {result.student for result in results}
    for group in read_groups(submitted, assignment) if submitted else ():
        if group.remark and (members := [student for student in group.members if student in graded]):
            yield group.remark, members


def changes_table(found: list[Change], known: Mapping[str, dict[str, str]]) -> Table:
    """Return a table of the changes for the terminal; `known` as for `Change.reasons`."""
    table = Table(title="changed marks")
    for column in ("student", "before", "now", "what changed", "checks"):
        table.add_column(column, overflow="fold")  # the ids of checks are long words
    for change in found:
        checks = [f"{id_} {_points(old)} → {_points(new)}" for id_, old, new in change.checks]
        cells = (
            change.student,
            _shown(change.before),
            _shown(change.after),
            "\n".join(_some(change.reasons(known))),
            "\n".join(_some(checks)),
        )
        table.add_row(*(_plain(cell) for cell in cells))
    return table


def _some(lines: list[str]) -> list[str]:
    more = len(lines) - _SHOWN
    return lines[:_SHOWN] + ([f"and {more} more"] if more > 0 else [])


def _mark(result: Result) -> tuple[float, float]:
    return result.score, result.max_score


def _shown(result: Result) -> str:
    return f"{number(result.score)} / {number(result.max_score)}"


def _points(points: float | None) -> str:
    return "none" if points is None else number(points)


def _plain(cell: str) -> Text:
    """Return text that rich does not read as markup, without control characters."""
    return Text("\n".join(on_one_line(line) for line in cell.split("\n")))
