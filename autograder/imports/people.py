"""Whose a file is: the names by which other systems call a student, and the roster that maps them to ids.

A roster is a CSV file with a column `id` (the student's id here, which exports use) and any further columns, such as
`name`, `email`, `moodle`, `canvas`: a student is found by what stands in any of them. Accents, capitals, punctuation
and the order of first and last name do not matter. A column `submitted` gives the time of submission.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from autograder.imports.archive import MAX_NAME_BYTES, Entry
from autograder.late import parse_time


@dataclass(frozen=True)
class Piece:
    """A file of one student's submission: the student's names in the source, the first to be shown; where it goes."""

    names: tuple[str, ...]
    default_id: str | None  # where there is no roster
    path: tuple[str, ...]
    entry: Entry
    late: bool = False


@dataclass
class Roster:
    """The students of a course by every name that they have."""

    ids: dict[str, set[str]] = field(default_factory=dict)  # plain name -> ids
    submitted: dict[str, datetime] = field(default_factory=dict)
    people: dict[str, dict[str, str]] = field(default_factory=dict)  # the row of each id

    def find(self, names: tuple[str, ...]) -> str | None:
        """The id of the student whom one of the names means, the first that means just one; None for nobody."""
        for name in names:
            found = self.ids.get(plain_name(name), set())
            if len(found) == 1:
                return next(iter(found))
        return None


def read_roster(path: Path) -> Roster:
    """Read a roster; raises ValueError for what it cannot mean."""
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text: save it as “CSV UTF-8”") from None
    first = text.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=";" if first.count(";") > first.count(",") else ",")
    if "id" not in (rows.fieldnames or ()):
        raise ValueError(f"{path} has no column `id` in its first row")
    roster = Roster()
    known: set[str] = set()
    for number, row in enumerate(rows, start=2):
        student = (row["id"] or "").strip()
        if student_id(student) is None or student in known:
            raise ValueError(f"{path}, row {number}: the id {student!r} stands twice or cannot be the name of a folder")
        known.add(student)
        roster.people[student] = {column: value.strip() for column, value in row.items() if column and value}
        for column, value in roster.people[student].items():
            if column == "submitted":
                try:
                    roster.submitted[student] = parse_time(value).astimezone(UTC)
                except ValueError as error:
                    raise ValueError(f"{path}, row {number}: {error}") from error
            else:
                for name in _orders(value):
                    roster.ids.setdefault(name, set()).add(student)
    roster.ids.pop("", None)
    return roster


def plain_name(name: str) -> str:
    """A name without capitals, accents, spaces and punctuation."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in letters if letter.isalnum())


def student_id(name: str) -> str | None:
    """The name of a student's folder as an id; None where it cannot be one (see `autograder.results`)."""
    is_fine = name and not name.startswith(".") and len(name.encode("utf-8", "replace")) <= MAX_NAME_BYTES
    is_fine = is_fine and not re.search(r"[/\\\0+*\n\r]", name) and not name.endswith(".timings")
    return name if is_fine else None


def made_id(*names: str) -> str | None:
    """An id made of names of another system, for those without a roster."""
    return student_id("-".join(plain_name(name) for name in names if name)[: MAX_NAME_BYTES // 4])


def _orders(name: str) -> set[str]:
    """A name with its words in turn first: systems write Doe, Jane as well as Jane Doe."""
    words = [word for word in (plain_name(part) for part in re.split(r"[\s,]+", name)) if word]
    return {"".join(words[n:] + words[:n]) for n in range(len(words))}
