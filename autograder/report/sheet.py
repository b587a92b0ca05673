"""What the course adds to the results of an assignment: titles, and the way back to each exercise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from autograder import assignment as assignments


@dataclass(frozen=True, slots=True)
class Sheet:
    """`parts` maps exercises to their titles, `files` to the file in which the student writes them; `url`, where there
    is one, is the folder that holds these files. All may be empty: results stand for themselves."""

    title: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    url: str = ""


def read_sheet(name: str, course: Path, exercises: str = "") -> Sheet:
    """The sheet of the assignment `name`, as bare as need be where the course does not have it (any more).

    `exercises` is the address below which students find the assignments' folders.
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
    return Sheet(assignment.title, assignment.parts, files, url)
