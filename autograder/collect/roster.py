"""The roster: a CSV file that maps the names by which other systems know the students to their ids here.

It has a column `id` (the student's id here, which exports use) and any other columns, such as `name`, `email`,
`moodle`, `canvas`: a student is found by the value in any of them. Accents, capitals, punctuation and the order of
names do not matter. The column `submitted` has the time of submission, and the column `group` is the same for
students who hand in together.

Two files are read as they are downloaded: Canvas's gradebook (Grades → Export), and Moodle's grading worksheet (in
English or German), which also has the times of submission. The id is then the login or, if it is missing, the first
column of a list that all students have.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from pathlib import Path

from autograder.collect.people import Handed, plain_name, student_id
from autograder.collect.table import Table, read_table
from autograder.late import parse_time

Row = dict[str, str]

# The columns of two platforms with the names that the roster uses, and the columns of the ids, the first choice first.
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
_MOODLE_GERMAN = {
    "ID": "moodle",
    "Vollständiger Name": "name",
    "Anmeldename": "login",
    "ID-Nummer": "number",
    "E-Mail-Adresse": "email",
    "Gruppe": "group",
    "Zuletzt geändert (Abgabe)": "submitted",
}
_MOODLE_GERMAN_IDS = ("Anmeldename", "ID-Nummer", "E-Mail-Adresse", "ID")
# As Moodle writes times in English, here and in the United States, and in German, after the day of the week.
_MOODLE_TIMES = ("%d %B %Y, %I:%M %p", "%B %d, %Y, %I:%M %p", "%d %B %Y, %H:%M", "%d. %B %Y, %H:%M")
_GERMAN_MONTHS = {"Januar": "January", "Februar": "February", "März": "March", "Mai": "May", "Juni": "June"}
_GERMAN_MONTHS |= {"Juli": "July", "Oktober": "October", "Dezember": "December"}
_NOT_NAMES = {"submitted", "group", "section"}


@dataclass(frozen=True)
class Download:
    """A file that was downloaded from Canvas or Moodle; `rows` maps each id to the number of its row."""

    platform: str  # canvas or moodle
    path: Path
    table: Table
    rows: dict[str, int]


@dataclass
class Roster:
    """The students of a course, found by any of their names."""

    ids: dict[str, set[str]] = field(default_factory=dict)  # plain name -> ids
    groups: dict[str, list[str]] = field(default_factory=dict)  # plain name -> ids
    submitted: dict[str, datetime] = field(default_factory=dict)
    people: dict[str, Row] = field(default_factory=dict)  # the row of each id
    remarks: list[str] = field(default_factory=list)
    download: Download | None = None  # if the file is one of a platform

    def find(self, names: Iterable[str], called: str = "") -> str | None:
        """Return the id of the student with one of the names, the first unique one; None if there is none.

        A number counts only if `called` contains a word of the student's name in the roster, because platforms number
        groups too.
        """
        for name in names:
            found = self.ids.get(plain_name(name), set())
            if len(found) == 1:
                (student,) = found
                return None if name.isdigit() and not self._is_called(student, called) else student
        return None

    def known_as(self, student: str) -> str | None:
        """Return the id in the roster of a student in the results; None if there is none."""
        return student if student in self.people else self.find((student,))

    def _is_called(self, student: str, name: str) -> bool:
        words = {plain_name(word) for word in re.split(r"[\s,]+", self.people[student].get("name", ""))} - {""}
        return not name or not words or any(word in plain_name(name) for word in words)

    def members(self, handed: Handed) -> list[str | None]:
        """Return the ids of the students who handed it in, or of the members of a group; None for an unknown name."""
        for name in handed.groups:
            if found := self.groups.get(plain_name(name)):
                return list(found)
        return [self.find(person.names, person.called) for person in handed.people]


def read_roster(path: Path, zone: tzinfo | None = None) -> Roster:
    """Read a roster; `zone` is the time zone of times without one; if it is None, they count as UTC, with a remark.

    Raises ValueError for a mistake in the file.
    """
    table = read_table(path)
    header, rows = table.header, table.rows()
    roster = Roster()
    platform = ""
    is_ours = False
    if {"Student", "ID", "Section"} <= set(header):
        platform = "canvas"
        people = _converted([row for row in rows if not _is_test_student(row[1])], _CANVAS, _CANVAS_IDS)
    elif "Identifier" in header and "id" not in header:
        platform = "moodle"
        people = _converted(rows, _MOODLE, _MOODLE_IDS)
    elif {"ID", "Bewertung"} <= set(header) and rows and re.fullmatch(r"Teilnehmer/in\s?\d+", rows[0][1].get("ID", "")):
        platform = "moodle"
        people = _converted(rows, _MOODLE_GERMAN, _MOODLE_GERMAN_IDS)
    elif is_ours := "id" in map(str.casefold, header):
        own = [(number, {column.casefold(): value for column, value in row.items()}) for number, row in rows]
        people = [(number, row.get("id", ""), row) for number, row in own]
    else:
        raise ValueError(f"{path} has no column `id` in its first row, and is not an export of Canvas or Moodle.")
    unread = []
    is_local = False
    for number, student, row in people:
        if student_id(student) is None:
            raise ValueError(f"{path}, row {number}: the id {student!r} cannot be the name of a folder.")
        if student in roster.people:
            raise ValueError(f"{path}, row {number}: the id {student!r} is used twice.")
        roster.people[student] = row
        roster.ids.setdefault(plain_name(student), set()).add(student)
        for column, value in row.items():
            if column not in _NOT_NAMES:
                for name in _orders(value):
                    roster.ids.setdefault(name, set()).add(student)
        if group := plain_name(row.get("group", "")):
            roster.groups.setdefault(group, []).append(student)
            for name in _orders(row.get("name", "")):  # “Group-Full name”, see `autograder.collect.moodle`
                roster.ids.setdefault(group + name, set()).add(student)
        time = row.get("submitted", "-")
        try:
            if time != "-":
                moment = _time(time)
                is_local |= moment.tzinfo is None
                roster.submitted[student] = (
                    moment if moment.tzinfo else moment.replace(tzinfo=zone or UTC)
                ).astimezone(UTC)
        except ValueError as error:
            if is_ours:
                raise ValueError(f"{path}, row {number}: {error}.") from error
            unread.append(student)
    if unread:
        roster.remarks.append(f"times of submission in {path.name} that cannot be read: those of {', '.join(unread)}")
    if is_local and zone is None:
        roster.remarks.append(
            f"times of submission in {path.name} without a time zone count as UTC: set `timezone` in course.toml, and"
            " collect again with --update"
        )
    roster.ids.pop("", None)
    if platform:
        roster.download = Download(platform, path, table, {student: number for number, student, _ in people})
    return roster


def _is_test_student(row: Row) -> bool:
    """Whether a row of Canvas's gradebook is the test student of the course."""
    return row.get("Student") == "Student, Test" and "SIS User ID" not in row


def _converted(rows: list[tuple[int, Row]], names: dict[str, str], ids: tuple[str, ...]) -> list[tuple[int, str, Row]]:
    """Return the rows of people with their ids, and with the column names of a roster."""
    people = [(number, row) for number, row in rows if row.get("ID") or row.get("Identifier")]
    filled = (column for column in ids if len({row[column] for _, row in people if column in row}) == len(people))
    chosen = next(filled, ids[-1])
    converted = []
    for number, row in people:
        student = re.sub(r"^Teilnehmer/in\s?", "Participant ", row.get(chosen, ""))  # folders cannot have a slash
        row = {names[column]: value for column, value in row.items() if column in names}
        if "moodle" in row:
            row["moodle"] = re.sub(r".*?(\d+)$", r"\1", row["moodle"])  # “Participant 123”
        converted.append((number, student, row))
    return converted


def _time(text: str) -> datetime:
    """Parse a time, which may be without a zone."""
    _, _, date = text.partition(", ")
    date = re.sub(r"[^\W\d]+", lambda word: _GERMAN_MONTHS.get(word[0], word[0]), date)
    for form in _MOODLE_TIMES:
        with suppress(ValueError):
            return datetime.strptime(date, form)
    return parse_time(text, None)


def _orders(name: str) -> set[str]:
    """Return a name with each of its words first, because systems write both “Doe, Jane” and “Jane Doe”."""
    words = [word for word in (plain_name(part) for part in re.split(r"[\s,]+", name)) if word]
    return {"".join(words[n:] + words[:n]) for n in range(len(words))}
