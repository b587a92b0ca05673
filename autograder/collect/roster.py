"""The roster: a CSV file that maps the names by which other systems know the students to their ids here.

It has a column `id` (the student's id here, which exports use) and any further columns, such as `name`, `email`,
`moodle`, `canvas`: a student is found by what any of them holds. Accents, capitals, punctuation and the order of first
and last name do not matter. A column `submitted` gives the time of submission, and a column `group` those who hand in
together.

Two files are read as they are downloaded: Canvas's gradebook (Grades → Export), and Moodle's grading worksheet, which
also has the times of submission. The id is then the login or, where that is missing, the next best of the columns.
Excel's ways of saving are all read: separated by commas, semicolons or tabs; UTF-8, Windows-1252 or “Unicode text”.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from pathlib import Path

from autograder.collect.people import Handed, plain_name, student_id
from autograder.late import parse_time

Row = dict[str, str]

# The columns of two platforms, as the roster calls them; those of the ids in the order in which they are tried.
_CANVAS = {"Student": "name", "ID": "canvas", "SIS User ID": "sis", "SIS Login ID": "login", "Section": "section"}
_CANVAS_IDS = ("SIS Login ID", "SIS User ID", "ID")
_MOODLE = {
    "Identifier": "moodle",
    "Full name": "name",
    "Username": "login",
    "ID number": "number",
    "Email address": "email",
    "Group": "group",
    "Last modified (submission)": "submitted",
}
_MOODLE_IDS = ("Username", "ID number", "Email address", "Identifier")
# As Moodle writes times in English, here and in the United States.
_MOODLE_TIMES = ("%A, %d %B %Y, %I:%M %p", "%A, %B %d, %Y, %I:%M %p", "%A, %d %B %Y, %H:%M")
_NOT_NAMES = {"submitted", "group", "section"}


@dataclass
class Roster:
    """The students of a course by every name that they have."""

    ids: dict[str, set[str]] = field(default_factory=dict)  # plain name -> ids
    groups: dict[str, list[str]] = field(default_factory=dict)  # plain name -> ids
    submitted: dict[str, datetime] = field(default_factory=dict)
    people: dict[str, Row] = field(default_factory=dict)  # the row of each id
    remarks: list[str] = field(default_factory=list)

    def find(self, names: Iterable[str], called: str = "") -> str | None:
        """The id of the student whom one of the names means, the first that is unique; None where there is none.

        A number is believed only for a student who is `called` by some word of the name in the roster: platforms
        number groups too.
        """
        for name in names:
            found = self.ids.get(plain_name(name), set())
            if len(found) == 1:
                (student,) = found
                return None if name.isdigit() and not self._is_called(student, called) else student
        return None

    def _is_called(self, student: str, name: str) -> bool:
        words = {plain_name(word) for word in re.split(r"[\s,]+", self.people[student].get("name", ""))} - {""}
        return not name or not words or any(word in plain_name(name) for word in words)

    def members(self, handed: Handed) -> list[str | None]:
        """The ids of those who handed it in, a group's members where it is a group's; None for an unknown name."""
        for name in handed.groups:
            if found := self.groups.get(plain_name(name)):
                return list(found)
        return [self.find(person.names, person.called) for person in handed.people]


def read_roster(path: Path, zone: tzinfo = UTC) -> Roster:
    """Read a roster; raises ValueError for a mistake in it. `zone` is that of times that do not name one."""
    header, rows = _table(path)
    roster = Roster()
    is_ours = False
    if {"Student", "ID", "Section"} <= set(header):
        people = _converted(rows, _CANVAS, _CANVAS_IDS)
    elif "Identifier" in header and "id" not in header:
        people = _converted(rows, _MOODLE, _MOODLE_IDS)
    elif is_ours := "id" in map(str.casefold, header):
        own = [(number, {column.casefold(): value for column, value in row.items()}) for number, row in rows]
        people = [(number, row.get("id", ""), row) for number, row in own]
    else:
        raise ValueError(f"{path} has no column `id` in its first row, and is not an export of Canvas or Moodle.")
    unread = []
    for number, student, row in people:
        if student_id(student) is None:
            raise ValueError(f"{path}, row {number}: the id {student!r} cannot be the name of a folder.")
        if student in roster.people:
            raise ValueError(f"{path}, row {number}: the id {student!r} is there twice.")
        roster.people[student] = row
        roster.ids.setdefault(plain_name(student), set()).add(student)
        for column, value in row.items():
            if column not in _NOT_NAMES:
                for name in _orders(value):
                    roster.ids.setdefault(name, set()).add(student)
        if group := plain_name(row.get("group", "")):
            roster.groups.setdefault(group, []).append(student)
        time = row.get("submitted", "-")
        try:
            if time != "-":
                roster.submitted[student] = _time(time, zone)
        except ValueError as error:
            if is_ours:
                raise ValueError(f"{path}, row {number}: {error}.") from error
            unread.append(student)
    if unread:
        roster.remarks.append(f"times of submission in {path.name} that cannot be read: those of {', '.join(unread)}")
    roster.ids.pop("", None)
    return roster


def _table(path: Path) -> tuple[list[str], list[tuple[int, Row]]]:
    """The header, and the rows that hold anything with their numbers; without empty cells."""
    text = _decoded(path)
    first = text.partition("\n")[0].strip()
    separator = max(",;\t", key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
    lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    header = [cell.strip() for cell in lines[0]] if lines else []
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        row = {column: cell.strip() for column, cell in zip(header, line, strict=False) if cell.strip() and column}
        if row:
            rows.append((number, row))
    return header, rows


def _decoded(path: Path) -> str:
    data = path.read_bytes()
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if utf16 else ("utf-8-sig", "cp1252"):
        with suppress(UnicodeDecodeError):
            return data.decode(encoding)
    raise ValueError(f"{path} is not a table of text: save it as “CSV UTF-8”.")


def _converted(rows: list[tuple[int, Row]], names: dict[str, str], ids: tuple[str, ...]) -> list[tuple[int, str, Row]]:
    """A platform's rows of people, with their ids and the roster's names of columns."""
    people = [(number, row) for number, row in rows if row.get("ID") or row.get("Identifier")]
    filled = (column for column in ids if len({row[column] for _, row in people if column in row}) == len(people))
    chosen = next(filled, ids[-1])
    converted = []
    for number, row in people:
        student = row.get(chosen, "")
        row = {names[column]: value for column, value in row.items() if column in names}
        if "moodle" in row:
            row["moodle"] = re.sub(r".*?(\d+)$", r"\1", row["moodle"])  # “Participant 123”
        converted.append((number, student, row))
    return converted


def _time(text: str, zone: tzinfo) -> datetime:
    for form in _MOODLE_TIMES:
        with suppress(ValueError):
            return datetime.strptime(text, form).replace(tzinfo=zone).astimezone(UTC)
    return parse_time(text).astimezone(UTC)


def _orders(name: str) -> set[str]:
    """A name with its words in turn first: systems write Doe, Jane as well as Jane Doe."""
    words = [word for word in (plain_name(part) for part in re.split(r"[\s,]+", name)) if word]
    return {"".join(words[n:] + words[:n]) for n in range(len(words))}
