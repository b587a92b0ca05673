"""What the course adds to the results of an assignment: titles, and links to the exercises."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from autograder import assignment as assignments
from autograder.files import read_regular
from ebmcourse.checking.program import MAX_NOTEBOOK_BYTES, read_notebook


@dataclass(frozen=True, slots=True)
class Sheet:
    """Titles and links of an assignment; all may be empty.

    `parts` maps exercises to their titles, `files` maps them to the files to edit, and `url` is the folder of these
    files on the web. `written` maps the questions that are marked by hand to their points.
    """

    title: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    url: str = ""
    written: Mapping[str, float] = field(default_factory=dict)


def read_sheet(name: str, course: Path, exercises: str = "") -> Sheet:
    """Return the sheet of the assignment `name`; without titles if it is not in the course.

    `exercises` is the web address of the folder that holds the folders of the assignments.
    """
    url = f"{exercises.rstrip('/')}/{quote(name)}/" if exercises else ""
    try:
        assignment = assignments.load(name, course)
    except ValueError:
        return Sheet(url=url)
    files: dict[str, str] = {}
    for file in assignment.files:
        source = assignment.folder / file
        text = source.read_text("utf-8") if source.is_file() else ""
        for part in re.findall(r"^\s*### BEGIN SOLUTION (\S+)", text, re.MULTILINE):
            files.setdefault(part, file)
    written = _written(assignment.notebook.read_text("utf-8")) if assignment.notebook else {}
    return Sheet(assignment.title, assignment.parts, files, url, written)


def without_answers(folder: Path, name: str) -> str:
    """Return a sentence on why the notebook of the assignment `name` in `folder` cannot be read; empty if it can."""
    file = f"{name}.ipynb"
    try:
        read_notebook(read_regular(folder / file, MAX_NOTEBOOK_BYTES))
    except FileNotFoundError:
        return f"The notebook `{file}` is missing: its questions have no answers."
    except ValueError as reason:
        return f"The notebook `{file}` cannot be used: it is {reason}. Its questions have no answers."
    return ""


def _written(script: str) -> dict[str, float]:
    """Return the points of the questions in a notebook, as a Python script, that a person marks."""
    written = {}
    for about in re.findall(r"^# %%.* nbgrader=(\{.*\})$", script, re.MULTILINE):
        cell = json.loads(about)
        if cell.get("grade") and cell.get("solution"):
            question = re.sub(r"^answer-", "", str(cell["grade_id"])).replace("-", ".")
            written[question] = float(cell.get("points", 0))
    return written
