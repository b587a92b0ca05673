"""The lines of a submission around the place that a diagnosis names."""

import re
from dataclasses import dataclass
from pathlib import Path

from autograder.files import read_regular
from ebmcourse.checking.program import program_of

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
    name, number = match["file"] or f"cell {match['cell']}", int(match["line"])
    lines = re.split(r"\r\n|\r|\n", _text(folder, name))  # as Python counts them
    # The diagnosis has the beginning of the line, without its indent.
    if not 1 <= number <= len(lines) or not lines[number - 1].strip().startswith(match["text"].strip()[:40]):
        return None
    first = max(1, number - _AROUND)
    shown = lines[first - 1 : number + _AROUND]
    indent = min((len(line) - len(line.lstrip()) for line in shown if line.strip()), default=0)
    return Excerpt(
        name,
        tuple(Line(n, _cut(line[indent:].rstrip()), n == number) for n, line in enumerate(shown, start=first)),
    )


def _cut(line: str) -> str:
    return line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]} …"


def _text(folder: Path, name: str) -> str:
    """Return the file or cell with this name of a submission, if exactly one of its files has it; else no text."""
    paths = [folder / name] if name.endswith(".py") else sorted(folder.glob("*.ipynb"))[:10]
    found = [files[name] for files in map(_program, paths) if name in files]
    return found[0] if len(found) == 1 else ""


def _program(path: Path) -> dict[str, str]:
    """Return what a file adds to the program; nothing for a file that is too large, not regular or cannot be read."""
    try:
        return program_of(path.name, read_regular(path, MAX_BYTES))
    except (ValueError, OSError):
        return {}
