"""Who handed something in, as a platform names them, and the ids that people have here."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from datetime import datetime

from autograder.collect.archive import MAX_NAME_BYTES, Entry
from autograder.results import TIMINGS_SUFFIX


@dataclass(frozen=True)
class Person:
    """A student as a platform knows them: by names that a roster may hold, the most certain one first."""

    names: tuple[str, ...]
    default_id: str | None  # where there is no roster
    called: str = ""  # the name that has to agree with the roster's where a number is all that is found


@dataclass
class Handed:
    """One submission in a source."""

    label: str  # what the source calls it, unlike every other one
    people: list[Person]
    groups: tuple[str, ...] = ()  # names by which a roster may know the group that handed it in
    files: list[tuple[tuple[str, ...], Entry]] = field(default_factory=list)  # where each goes in the submission
    time: datetime | None = None  # where the platform says it
    late: bool | None = None  # by the platform's own deadline; None where it says nothing
    remarks: list[str] = field(default_factory=list)  # on what was done
    problems: list[str] = field(default_factory=list)  # for the instructor to look at
    doubts: list[str] = field(default_factory=list)  # on the time, for the instructor


@dataclass
class Reading:
    """A source as one kind reads it."""

    handed: dict[str, Handed] = field(default_factory=dict)  # by label
    misfits: list[str] = field(default_factory=list)  # names of files that this kind does not explain
    remarks: list[str] = field(default_factory=list)

    def of(self, label: str, person: Person, *groups: str) -> Handed:
        """The submission with this label, made at the first use."""
        return self.handed.setdefault(label, Handed(label, [person], groups))


def plain_name(name: str) -> str:
    """A name without capitals, accents, spaces and punctuation."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    return "".join(letter for letter in letters if letter.isalnum())


def student_id(name: str) -> str | None:
    """The name of a student's folder as an id; None where it cannot be one (see `autograder.results`)."""
    is_fine = name and not name.startswith(".") and len(name.encode("utf-8", "replace")) <= MAX_NAME_BYTES
    is_fine = is_fine and not re.search(r"[/\\\0+*\n\r]", name) and not name.endswith(TIMINGS_SUFFIX)
    return name if is_fine else None


def made_id(*names: str) -> str | None:
    """An id made of names of another system, for those without a roster."""
    return student_id("-".join(plain_name(name) for name in names if name)[: MAX_NAME_BYTES // 4])
