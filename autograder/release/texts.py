"""The texts of a release: all of its files but the notebook and the recording of what the reference returns."""

import re
from collections.abc import Mapping
from pathlib import Path

from autograder.assignment import COURSE, Assignment
from autograder.release.stubs import student_version
from autograder.text import listed


def texts(assignment: Assignment, points: Mapping[str, float]) -> dict[str, str]:
    """Return the texts of a release by path. `points` are the points of each exercise."""
    sources = [*assignment.scripts, *(assignment.folder / name for name in assignment.given)]
    found = {path.name: student_version(path.read_text("utf-8"), path.name) for path in sources}
    found["README.md"] = _readme(assignment, points)
    found["checks/assignment.toml"] = (assignment.folder / "assignment.toml").read_text("utf-8")
    for path in sorted(assignment.checks.glob("*.py")):
        found[f"checks/{path.name}"] = student_version(path.read_text("utf-8"), path.name)
    return found


def outdated(assignment: Assignment, points: Mapping[str, float], course: Path = COURSE) -> str:
    """Return a sentence if the sources do not give the texts of the release any more, or an empty text.

    `points` are the points of each exercise, which a result has. Notebooks and the values that the public checks expect
    are not compared, because that takes more imports than grading a submission. Without a release there is nothing to
    say.
    """
    target = course / "assignments" / assignment.name
    if not target.is_dir():
        return ""
    try:
        now = texts(assignment, points)
    except (ValueError, OSError) as error:
        what = f"and cannot be released again: {str(error).rstrip('.')}"
    else:
        changed = [path for path, text in now.items() if not _has_text(target / path, text)]
        if not changed:
            return ""
        what = f"in {listed(changed, 10)}"
    return (
        f"{assignment.name} has changed since its release, {what}; students may have worked with an older version: see"
        " “Correct a check” in docs/instructor.md."
    )


def _has_text(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def _readme(assignment: Assignment, points: Mapping[str, float]) -> str:
    """Return the assignment's README, in which ``{points:3.2a}`` is replaced by the points of that exercise."""
    text = (assignment.folder / "README.md").read_text("utf-8")
    absent = [part for part in points if f"{{points:{part}}}" not in text]
    if 0 < len(absent) < len(points):
        raise ValueError(
            f"README.md does not give the points of {absent[0]}: add its row, with {{points:{absent[0]}}}."
        )

    def value(match: re.Match[str]) -> str:
        return f"{points[match[1]]:g}" if match[1] in points else "by hand"

    return re.sub(r"\{points:([^}]+)\}", value, text)
