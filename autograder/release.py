"""Release: from the single source in ``solutions/`` to what a student gets in ``assignments/``.

In every file, a region between ``### BEGIN SOLUTION <exercise>`` and ``### END SOLUTION`` becomes the TODO text at
its top and a ``raise NotImplementedError``; a region between ``### BEGIN HIDDEN TESTS`` and ``### END HIDDEN TESTS``
goes. Public checks travel with the observations of the reference that they compare with.
"""

from __future__ import annotations

import filecmp
import json
import re
import shutil
from pathlib import Path

from autograder.assignment import COURSE, Assignment
from autograder.judge import Judge
from autograder.results import write_atomically
from ebmcourse.checking.answers import PUBLIC_SEED, Live, record
from ebmcourse.checking.compare import difference
from ebmcourse.checking.observation import decode

BEGIN_SOLUTION, END_SOLUTION = "### BEGIN SOLUTION", "### END SOLUTION"
BEGIN_HIDDEN, END_HIDDEN = "### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS"
RECORDING = "recorded.safetensors"

# Recordings made on another processor differ by a few units in the last place; these agree.
SAME_RTOL, SAME_ATOL = 1e-4, 1e-5


def student_version(source: str, name: str = "") -> str:
    """The text of a source file as students get it; raises ValueError for markers that do not match.

    A solution region starts with its exercise and with comment lines, the first of which is ``# TODO <sentence>``.
    """
    lines: list[str] = []
    region: list[str] | None = None
    hidden = False
    exercise = ""
    for number, line in enumerate(source.splitlines(), start=1):
        marker = line.strip()
        if marker.startswith("### BEGIN") and (region is not None or hidden):
            raise ValueError(f"{name}, line {number}: a region begins inside another one.")
        if marker.startswith(BEGIN_SOLUTION):
            exercise, region = marker.removeprefix(BEGIN_SOLUTION).strip(), []
        elif marker == END_SOLUTION:
            if region is None:
                raise ValueError(f"{name}, line {number}: a solution ends that has not begun.")
            lines += _stub(region, exercise, f"{name}, line {number}")
            region = None
        elif marker == BEGIN_HIDDEN:
            hidden = True
        elif marker == END_HIDDEN:
            if not hidden:
                raise ValueError(f"{name}, line {number}: hidden tests end that have not begun.")
            hidden = False
        elif region is not None:
            region.append(line)
        elif not hidden:
            lines.append(line)
    if region is not None or hidden:
        raise ValueError(f"{name}: a region is not closed.")
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).rstrip("\n") + "\n"


def _stub(region: list[str], exercise: str, where: str) -> list[str]:
    """What students see of a solution region: its TODO comments, and an error that names the exercise."""
    first = region[0].strip() if region else ""
    if not exercise or not first.startswith("# TODO "):
        raise ValueError(f"{where}: a solution begins with its exercise and with a line `# TODO <what to write>`.")
    comments: list[str] = []
    for line in region:
        if not line.strip().startswith("#"):
            break
        comments.append(line)
    indent = region[0][: len(region[0]) - len(region[0].lstrip())]
    text = " ".join(line.strip().removeprefix("#").strip() for line in comments)
    task = re.split(r"(?<=[.:])\s", text.removeprefix("TODO ").strip())[0].rstrip(".:")
    comments[0] = comments[0].replace("# TODO ", f"# TODO ({exercise}): ", 1)
    message = json.dumps(f"Exercise {exercise}: {task}.", ensure_ascii=False)
    return [*comments, f"{indent}raise NotImplementedError({message})"]


def build(assignment: Assignment, target: Path) -> None:
    """Write the student's version of an assignment into the new folder `target`."""
    checks = target / "checks"
    checks.mkdir(parents=True)
    for name in (*assignment.files, *assignment.given):
        _write(target / name, student_version((assignment.folder / name).read_text("utf-8"), name))
    _write(target / "README.md", _readme(assignment))
    if assignment.notebook:
        from autograder.notebooks import student_notebook  # nbgrader takes seconds to import

        notebook = student_notebook(assignment.notebook.read_text("utf-8"), part_points(assignment))
        _write(target / f"{assignment.name}.ipynb", notebook)
    shutil.copyfile(assignment.folder / "assignment.toml", checks / "assignment.toml")
    for path in sorted(assignment.checks.glob("*.py")):
        _write(checks / path.name, student_version(path.read_text("utf-8"), path.name))
    live = Live(PUBLIC_SEED, assignment.folder)
    judge = Judge(checks, live)
    try:
        failed = [outcome for outcome in judge.outcomes(None) if outcome.status != "passed"]
    finally:
        judge.close()
    if failed:
        raise ValueError(f"The reference does not pass {failed[0].id}: {failed[0].diagnosis}.")
    (checks / RECORDING).write_bytes(record(live))
    for folder in target.rglob("__pycache__"):
        shutil.rmtree(folder)


def release(assignment: Assignment, built: Path, course: Path = COURSE) -> None:
    """Put what `build` has made in the place of the assignment's old release.

    A recording that says the same as before, up to rounding, is left as it is, so that releasing on another
    processor changes nothing.
    """
    target = course / "assignments" / assignment.name
    for path in differing(assignment, built, course):
        if (built / path).exists():
            write_atomically(target / path, (built / path).read_bytes())
        else:
            (target / path).unlink()


def differing(assignment: Assignment, built: Path, course: Path = COURSE) -> list[Path]:
    """The files, relative to the assignment's folder, in which the release is not what `build` has made."""
    target = course / "assignments" / assignment.name
    return [path for path in sorted({*_files(built), *_files(target)}) if not _same(built / path, target / path)]


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


def _files(folder: Path) -> list[Path]:
    return sorted(
        path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )


def _readme(assignment: Assignment) -> str:
    """The assignment's sheet; ``{points:3.2a}`` becomes the points of that exercise."""
    points = part_points(assignment)

    def value(match: re.Match[str]) -> str:
        return f"{points[match[1]]:g}" if match[1] in points else "by hand"

    return re.sub(r"\{points:([^}]+)\}", value, (assignment.folder / "README.md").read_text("utf-8"))


def part_points(assignment: Assignment) -> dict[str, float]:
    """How many points the checks of each exercise give."""
    points: dict[str, float] = {}
    for path in sorted(assignment.checks.glob("test_*.py")):
        for part, value in re.findall(r'@exercise\(\s*"([^"]+)",\s*points=([\d.]+)', path.read_text("utf-8")):
            points[part] = points.get(part, 0.0) + float(value)
    return points


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
