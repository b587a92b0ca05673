"""People who are missing on one side: they handed in without a result, or have one without a submission or a roster."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from autograder import assignment as assignments
from autograder.grade.submissions import students
from autograder.results import assignments_in, students_in


def not_graded(results_dir: Path, submitted: Path | None, course: Path) -> dict[str, list[str]]:
    """Return by assignment the students who have a folder in `submitted` and no result."""
    if submitted is None or not submitted.is_dir():
        return {}
    names = sorted({*assignments_in(results_dir), *assignments.names(course)})
    found = {name: sorted({*students(submitted, name)}.difference(students_in(results_dir, name))) for name in names}
    return {name: who for name, who in found.items() if who}


def not_handed_in(results_dir: Path, submitted: Path, assignment: str) -> list[str]:
    """Return the students who have a result of an assignment, but no folder in `submitted`."""
    return sorted({*students_in(results_dir, assignment)}.difference(students(submitted, assignment)))


def not_in_roster(results_dir: Path, ids: Collection[str], assignment: str = "") -> list[str]:
    """Return the students who have a result, of any assignment or of one, but none of the `ids` of the roster."""
    names = [assignment] if assignment else assignments_in(results_dir)
    graded = {student for name in names for student in students_in(results_dir, name)}
    return sorted(graded.difference(ids))
