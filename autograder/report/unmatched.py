"""What has no counterpart: submissions or pages without a result; results without a submission or not in the roster."""

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


def without_result(results_dir: Path, written: Collection[Path]) -> list[str]:
    """Return the pages of students and classes that are not among those just `written`, as paths in the folder."""
    pages = {*results_dir.glob("*/feedback/*.html"), *results_dir.glob("*/index.html")}
    return sorted(str(page.relative_to(results_dir)) for page in pages.difference(written))
