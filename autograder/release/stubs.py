"""Stubs: the students' version of a Python file.

A region between ``### BEGIN SOLUTION <exercise>`` and ``### END SOLUTION`` is replaced by the TODO comment at its top
and a ``raise NotImplementedError``. Regions between ``### BEGIN HIDDEN TESTS`` and ``### END HIDDEN TESTS`` are
removed.
"""

import json
import re

BEGIN_SOLUTION, END_SOLUTION = "### BEGIN SOLUTION", "### END SOLUTION"
BEGIN_HIDDEN, END_HIDDEN = "### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS"


def student_version(source: str, name: str = "") -> str:
    """Return the students' version of a source file. Raises ValueError for markers that do not match.

    The marker of a solution names its exercise, and the solution starts with comment lines, the first of which is
    ``# TODO <sentence>``.
    """
    lines: list[str] = []
    region: list[str] | None = None
    hidden = False
    exercise = ""
    for number, line in enumerate(source.splitlines(), start=1):
        marker = line.strip()
        if marker.startswith("### BEGIN") and (region is not None or hidden):
            raise ValueError(f"{name}, line {number}: a region begins inside another region.")
        if marker.startswith(BEGIN_SOLUTION):
            exercise, region = marker.removeprefix(BEGIN_SOLUTION).strip(), []
        elif marker == END_SOLUTION:
            if region is None:
                raise ValueError(f"{name}, line {number}: a solution ends but has not begun.")
            lines += _stub(region, exercise, f"{name}, line {number}")
            region = None
        elif marker == BEGIN_HIDDEN:
            hidden = True
        elif marker == END_HIDDEN:
            if not hidden:
                raise ValueError(f"{name}, line {number}: hidden tests end but have not begun.")
            hidden = False
        elif region is not None:
            region.append(line)
        elif not hidden:
            lines.append(line)
    if region is not None or hidden:
        raise ValueError(f"{name}: a region is not closed.")
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(lines)).rstrip("\n") + "\n"


def _stub(region: list[str], exercise: str, where: str) -> list[str]:
    """Return the stub of a solution: its TODO comments, and an exception that names the exercise."""
    first = region[0].strip() if region else ""
    if not exercise or not first.startswith("# TODO "):
        raise ValueError(f"{where}: a solution must begin with its exercise and a line `# TODO <what to write>`.")
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
