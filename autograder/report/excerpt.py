"""The lines of a submission around the place that a diagnosis names."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autograder.files import read_regular

MAX_BYTES = 2_000_000
MAX_LINE = 160  # characters
_AROUND = 2  # lines before and after
_PLACE = re.compile(
    r" in (?:cell (?P<cell>[\w.-]{1,100})|(?P<file>\w[\w.-]{0,100}\.py)), line (?P<line>\d{1,6}): `(?P<text>[^`\n]+)"
)


@dataclass(frozen=True, slots=True)
class Line:
    """A line with its number; `here` marks the one that the diagnosis names."""

    number: int
    text: str
    here: bool


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Lines of a file, or of a cell of a notebook."""

    source: str
    lines: tuple[Line, ...]


def excerpt(folder: Path, diagnosis: str) -> Excerpt | None:
    """Return the lines around the place in a diagnosis such as “… in ex_model.py, line 31: `x.shpae`.”

    `folder` holds the submission. Returns None if there is no such place, or another text at this place: the files may
    have changed since they were graded, and a place may be forged.
    """
    match = _PLACE.search(diagnosis)
    if not match or folder.is_symlink() or folder.parent.is_symlink():
        return None
    file, cell, number = match["file"], match["cell"], int(match["line"])
    text = _read(folder / file) if file else _cell(folder, cell)
    lines = re.split(r"\r\n|\r|\n", text)  # as Python counts them
    # The diagnosis has the beginning of the line, without its indent.
    if not 1 <= number <= len(lines) or not lines[number - 1].strip().startswith(match["text"].strip()[:40]):
        return None
    first = max(1, number - _AROUND)
    shown = lines[first - 1 : number + _AROUND]
    indent = min((len(line) - len(line.lstrip()) for line in shown if line.strip()), default=0)
    return Excerpt(
        file or f"cell {cell}",
        tuple(Line(n, _cut(line[indent:].rstrip()), n == number) for n, line in enumerate(shown, start=first)),
    )


def _cut(line: str) -> str:
    return line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]} …"


def _read(path: Path) -> str:
    """Return the text of a regular file that is not too large; no text for anything else."""
    try:
        return read_regular(path, MAX_BYTES).decode("utf-8-sig", "replace")
    except (ValueError, OSError):
        return ""


def _cell(folder: Path, name: str) -> str:
    """Return the source of the cell with this name in the only notebook of a submission that has one."""
    found = [source for path in sorted(folder.glob("*.ipynb"))[:10] for source in _cells(_read(path), name)]
    return found[0] if len(found) == 1 else ""


def _cells(notebook: str, name: str) -> list[str]:
    try:
        cells: list[Any] = json.loads(notebook)["cells"]
        found = [cell["source"] for cell in cells if cell["metadata"].get("nbgrader", {}).get("grade_id") == name]
        return ["".join(source) if isinstance(source, list) else str(source) for source in found]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
