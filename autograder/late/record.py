"""The times of submission that `autograder collect` records: `submitted/.collected/<assignment>.json`.

No submission can overwrite this file: `collect` writes submissions only below `submitted/<student>/<assignment>/`, and
the id of a student never begins with a dot.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from autograder.results import write_atomically

FOLDER = ".collected"
_SCHEMA = 1


@dataclass(frozen=True)
class Noted:
    """What the platform says about one submission."""

    platform: str = ""  # its name in a sentence
    time: datetime | None = None
    late: bool | None = None  # by the platform's own deadline; None if unknown
    remarks: tuple[str, ...] = ()


def read_json(path: Path, parse: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """Return what `parse` makes of a file that `collect` has written; an empty dict if there is none.

    Raises ValueError if the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        return parse(json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and collect again.") from error


def read_record(submitted: Path, assignment: str) -> dict[str, Noted]:
    """Return the record by student. Raises ValueError if the file is damaged."""
    return read_json(_path(submitted, assignment), _noted)


def _noted(data: Any) -> dict[str, Noted]:
    if data["schema"] != _SCHEMA:
        raise ValueError(f"it has the schema {data['schema']!r}, not {_SCHEMA}")
    return {
        student: Noted(
            entry["platform"],
            datetime.fromisoformat(entry["time"]) if entry["time"] else None,
            entry["late"],
            tuple(entry["remarks"]),
        )
        for student, entry in data["students"].items()
    }


def update_record(submitted: Path, assignment: str, changes: Mapping[str, Noted | None]) -> None:
    """Update the record of some students; None removes a student from it."""
    record = read_record(submitted, assignment)
    new = {student: noted for student, noted in {**record, **changes}.items() if noted is not None}
    if new == record:
        return
    students = {
        student: asdict(noted) | {"time": noted.time.isoformat() if noted.time else None}
        for student, noted in sorted(new.items())
    }
    text = json.dumps({"schema": _SCHEMA, "students": students}, ensure_ascii=True, indent=2) + "\n"
    write_atomically(_path(submitted, assignment), text.encode("ascii"))


def _path(submitted: Path, assignment: str) -> Path:
    return submitted / FOLDER / f"{assignment}.json"
