"""The groups in the roster: `submitted/.collected/.groups.json`.

Where the platform does not know them, each member can hand in files of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autograder.collect.archive import shown
from autograder.collect.layout import content_of
from autograder.late.record import FOLDER, read_json
from autograder.results import encode_json, write_atomically

_FILE = ".groups.json"


@dataclass(frozen=True)
class Group:
    """The members of a group, and a remark if they have handed in different files."""

    name: str
    members: tuple[str, ...]
    remark: str = ""


def compared(submitted: Path, assignment: str, wanted: Iterable[str], group: Group, twice: Iterable[str]) -> Group:
    """Return the group with a remark if the files of its members in the folder `submitted` differ.

    Only the `wanted` files are compared. Nothing was collected for the members `twice`, who have several submissions.
    """
    alike: dict[tuple[bytes | None, ...], list[str]] = {}
    for student in group.members:
        if files := content_of(submitted / student / assignment):
            alike.setdefault(tuple(files.get(name) for name in wanted), []).append(student)
    lost = sorted({*group.members}.intersection(twice).difference(*alike.values()))
    if len(alike) + len(lost) < 2:
        return group
    which = "; ".join(", ".join(students) for students in alike.values())
    remark = f"The members of the group {shown(group.name)} have handed in different files."
    remark += f" Each file counts for those who have handed it in: {which}." if which else ""
    remark += f" None counts for {', '.join(lost)}, because there are several." if lost else ""
    return Group(group.name, group.members, remark)


def read_groups(submitted: Path, assignment: str) -> list[Group]:
    """Return the groups of the last roster with which the assignment was collected.

    Raises ValueError if the file is damaged.
    """
    return _read(submitted).get(assignment, [])


def remember_groups(submitted: Path, assignment: str, groups: list[Group]) -> None:
    """Record the groups of an assignment."""
    known = _read(submitted)
    if groups != known.get(assignment, []):
        known[assignment] = groups
        data = {name: [asdict(group) for group in of_name] for name, of_name in known.items()}
        write_atomically(submitted / FOLDER / _FILE, encode_json(data))


def _read(submitted: Path) -> dict[str, list[Group]]:
    return read_json(submitted / FOLDER / _FILE, _groups)


def _groups(data: Any) -> dict[str, list[Group]]:
    return {
        name: [Group(str(one["name"]), tuple(map(str, one["members"])), str(one["remark"])) for one in groups]
        for name, groups in data.items()
    }
