"""Builds a release: from the single source in ``solutions/`` to the students' files in ``assignments/``.

Solutions and hidden tests are removed (`autograder.release.stubs`, and nbgrader for notebooks). Public checks are
released with the recorded observations of the reference that they compare with.
"""

import filecmp
import shutil
from pathlib import Path

from autograder.assignment import COURSE, Assignment
from autograder.release.programs import part_points, reference_program, released
from autograder.release.texts import texts
from autograder.results import write_atomically
from ebmcourse.checking.compare import difference
from ebmcourse.checking.judge import Judge
from ebmcourse.checking.observation import decode
from ebmcourse.checking.program import laid_out
from ebmcourse.checking.public import RECORDING
from ebmcourse.checking.reference import PUBLIC_SEED, LiveReference, record

# Tolerances for recordings that were made on another processor: they differ by rounding errors.
SAME_RTOL, SAME_ATOL = 1e-4, 1e-5


def build(assignment: Assignment, target: Path) -> None:
    """Write the student's version of an assignment into the new folder `target`."""
    points = part_points(assignment)
    if untitled := [part for part in points if part not in assignment.parts]:
        raise ValueError(f"There are checks for {untitled[0]}: add its title to [parts] in assignment.toml.")
    checks = target / "checks"
    checks.mkdir(parents=True)
    written = texts(assignment, points)
    if assignment.notebook:
        written[f"{assignment.name}.ipynb"] = released(assignment)
    for path, text in written.items():
        (target / path).write_text(text, encoding="utf-8", newline="\n")
    with laid_out(reference_program(assignment)) as folder:
        whole = LiveReference(PUBLIC_SEED, folder)
        Judge(assignment.checks, whole)  # draws the inputs, also those that are hidden in the release
        live = LiveReference(PUBLIC_SEED, folder, whole.inputs)
        judge = Judge(checks, live)
        failed = [outcome for outcome in judge.of_reference if not outcome.passed]
    if failed:
        error = judge.internal_errors.get(failed[0].id, "").strip().rpartition("\n")[2]
        reason = error or failed[0].diagnosis or failed[0].explanation
        raise ValueError(f"The reference does not pass {failed[0].id}: {reason.rstrip('.')}.")
    (checks / RECORDING).write_bytes(record(live, judge.files))
    for folder in target.rglob("__pycache__"):
        shutil.rmtree(folder)


def release(assignment: Assignment, built: Path, course: Path = COURSE) -> None:
    """Replace the assignment's old release by the one that `build` has made.

    A recording that is equal up to rounding errors is not replaced, so that releasing on another processor changes
    nothing.
    """
    target = course / "assignments" / assignment.name
    for path in differing(assignment, built, course):
        if (built / path).exists():
            write_atomically(target / path, (built / path).read_bytes())
        else:
            (target / path).unlink()


def differing(assignment: Assignment, built: Path, course: Path = COURSE) -> list[Path]:
    """Return the files, relative to the assignment's folder, in which the release differs from the build."""
    target = course / "assignments" / assignment.name
    return [path for path in sorted(_files(built) | _files(target)) if not _same(built / path, target / path)]


def _same(one: Path, other: Path) -> bool:
    if not (one.exists() and other.exists()):
        return False
    if filecmp.cmp(one, other, shallow=False):
        return True
    if one.name != RECORDING:
        return False
    try:
        return difference(decode(one.read_bytes()), decode(other.read_bytes()), SAME_RTOL, SAME_ATOL) is None
    except ValueError:
        return False


def _files(folder: Path) -> set[Path]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder) for path in files}
