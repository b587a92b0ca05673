"""The ids under which people were collected before: `submitted/.collected/.ids.json`.

With another roster, or without one, a person can get another id. The submission would then be there, and be graded,
twice.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from autograder.collect.groups import read_groups
from autograder.late.record import FOLDER, read_json
from autograder.results import encode_json, write_atomically

_FILE = ".ids.json"

Ids = dict[str, list[str]]  # the ids of a person, or of the members of a group, by name on the platform


def other_ids(submitted: Path, kind: str, now: Ids) -> dict[str, list[str]]:
    """Return by assignment the people who were collected under other ids, as “<name>: <id before>, now <id>”.

    Those whose old folder was removed do not count, nor do groups with other members.
    """
    found: dict[str, list[str]] = {}
    for assignment, kinds in _read(submitted).items():
        for name, before in kinds.get(kind, {}).items():
            ids = now.get(name, [])
            is_same = not ids or not {*ids}.isdisjoint(before) or min(len(ids), len(before)) > 1
            if not is_same and any((submitted / student / assignment).exists() for student in before):
                text = f"{name}: {', '.join(before)}, now {', '.join(ids)}"
                found.setdefault(assignment, []).append(text)
    return found


def disjoint(submitted: Path, assignment: str, kind: str, now: Ids, roster: Collection[str]) -> dict[str, list[str]]:
    """Return the ids, not in the roster, of each other kind of source of which no student is in this one."""
    ids = {student for students in now.values() for student in students}
    found: dict[str, list[str]] = {}
    for other, people in _read(submitted).get(assignment, {}).items():
        before = {student for students in people.values() for student in students}
        there = sorted(student for student in before if (submitted / student / assignment).exists())
        if other != kind and ids and ids.isdisjoint(there) and not {*there} <= {*roster}:
            found[other] = there
    return found


def handed_in_together(submitted: Path, assignment: str) -> list[list[str]]:
    """Return the groups that the platform or the roster names, each with the ids of its members."""
    kinds = _read(submitted).get(assignment, {})
    of_platform = [students for ids in kinds.values() for students in ids.values() if len(students) > 1]
    return [*of_platform, *(list(group.members) for group in read_groups(submitted, assignment))]


def remember_ids(submitted: Path, assignment: str, kind: str, now: Ids) -> None:
    """Record the ids of the people in a source whose submissions are in the folder `submitted`."""
    known = _read(submitted)
    ids = known.setdefault(assignment, {}).setdefault(kind, {})
    before = dict(ids)
    for name, students in now.items():
        if any((submitted / student / assignment).exists() for student in students):
            ids[name] = students
    if ids != before:
        write_atomically(submitted / FOLDER / _FILE, encode_json(known))


def _read(submitted: Path) -> dict[str, dict[str, Ids]]:
    """Return the ids by assignment and kind of source. Raises ValueError if the file is damaged."""
    return read_json(submitted / FOLDER / _FILE, _checked)


def _checked(known: dict[str, dict[str, Ids]]) -> dict[str, dict[str, Ids]]:
    for kinds in known.values():
        for ids in kinds.values():
            if not all(isinstance(student, str) for students in ids.values() for student in students):
                raise TypeError("an id is not text")
    return known
