"""What `autograder collect` knows of the time of a submission: `submitted/.collected/<assignment>.json`.

The file lies next to the students' folders. Nothing that a student hands in can reach it: `collect` writes below
`submitted/<student>/<assignment>/` only, and the id of a student never begins with a dot.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from autograder.results import write_atomically

FOLDER = ".collected"
_SCHEMA = 1


@dataclass(frozen=True)
class Noted:
    """What the platform says of one submission."""

    platform: str = ""  # as it is called in a sentence
    time: datetime | None = None
    late: bool | None = None  # by the platform's own deadline; None where it says nothing
    remarks: tuple[str, ...] = ()


def read_record(submitted: Path, assignment: str) -> dict[str, Noted]:
    """What was recorded, by student; raises ValueError where the file is damaged."""
    path = _path(submitted, assignment)
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_bytes())
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
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and collect again.") from error


def update_record(submitted: Path, assignment: str, changes: Mapping[str, Noted | None]) -> None:
    """Record what is known of some students; None for those of whom nothing is known any more."""
    record = read_record(submitted, assignment)
    new = {student: noted for student, noted in {**record, **changes}.items() if noted is not None}
    if new == record:
        return
    students = {
        student: {
            "platform": noted.platform,
            "time": noted.time.isoformat() if noted.time else None,
            "late": noted.late,
            "remarks": list(noted.remarks),
        }
        for student, noted in sorted(new.items())
    }
    text = json.dumps({"schema": _SCHEMA, "students": students}, ensure_ascii=True, indent=2) + "\n"
    write_atomically(_path(submitted, assignment), text.encode("ascii"))


def _path(submitted: Path, assignment: str) -> Path:
    return submitted / FOLDER / f"{assignment}.json"
