"""The people who hand in, as a platform names them, and their ids in this course."""

import re
import unicodedata
from dataclasses import dataclass, field
from datetime import datetime

from autograder.collect.archive import MAX_NAME_BYTES, Entry
from autograder.results import is_student_id

# The remark on a submission that has a text or a link besides its files.
TYPED = "What was typed on the platform is not collected; read it there."


@dataclass(frozen=True)
class Person:
    """A student on a platform: the names that a roster may contain, the most reliable one first."""

    names: tuple[str, ...]
    default_id: str | None  # without a roster
    called: str = ""  # the name to compare with the roster's if only a number is found


@dataclass
class Handed:
    """One submission in a source."""

    label: str  # the unique name of the submission in the source
    people: list[Person]
    groups: tuple[str, ...] = ()  # names that a roster may contain for the group that handed it in
    files: list[tuple[tuple[str, ...], Entry]] = field(default_factory=list)  # the path in the submission
    time: datetime | None = None  # if the platform has it
    late: bool | None = None  # by the platform's own deadline; None if unknown
    remarks: list[str] = field(default_factory=list)  # on what was done
    problems: list[str] = field(default_factory=list)  # for the instructor to look at
    doubts: list[str] = field(default_factory=list)  # on the time, for the instructor


@dataclass
class Reading:
    """The submissions of a source, read as one kind."""

    handed: dict[str, Handed] = field(default_factory=dict)  # by label
    misfits: list[str] = field(default_factory=list)  # names of the files that this kind does not explain
    remarks: list[str] = field(default_factory=list)

    def of(self, label: str, person: Person, *groups: str) -> Handed:
        """Return the submission with this label, and create it at the first use."""
        return self.handed.setdefault(label, Handed(label, [person], groups))


def plain_name(name: str) -> str:
    """Return a name without capitals, accents, spaces and punctuation."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in letters if letter.isalnum())


def student_id(name: str) -> str | None:
    """Return the name of a student's folder if it is a valid id (see `autograder.results`), or None."""
    return name if is_student_id(name) and not re.search(r"[\\+*\n\r]", name) else None


def made_id(*names: str) -> str | None:
    """Return an id made of names on the platform, for courses without a roster."""
    return student_id("-".join(plain_name(name) for name in names if name)[: MAX_NAME_BYTES // 4])
