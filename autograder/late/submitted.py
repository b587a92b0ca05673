"""When a submission was handed in, and how far that can be believed.

In this order: what `course.toml` says; what `autograder collect` has recorded; the name that the exchange gave to the
folder; `timestamp.txt` in the submission, which students can write.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from autograder.files import read_regular
from autograder.late import exchange
from autograder.late.course import Rules
from autograder.late.record import Noted
from autograder.late.times import TIMESTAMP, parse_time


@dataclass(frozen=True)
class Submitted:
    """When a submission was handed in, as far as that is known, and what is odd about it."""

    time: datetime | None = None
    remarks: tuple[str, ...] = ()
    late: bool | None = None  # what the platform says by its own deadline; None where it says nothing
    platform: str = ""
    is_claimed: bool = False  # the time comes from a file that the student can write, and from nowhere else


def submission_time(folder: Path, rules: Rules, now: datetime, noted: Noted | None = None) -> Submitted:
    """When the submission in `submitted/<student>/<assignment>` was handed in.

    `noted` is what `autograder collect` recorded about it. Never raises for what a student did.
    """
    assignment, student = folder.name, folder.parent.name
    if (assignment, student) in rules.submitted:
        return Submitted(rules.submitted[assignment, student])
    remarks: list[str] = []
    claimed = _read_stamp(folder / TIMESTAMP, remarks)
    if noted is not None and noted.time == claimed:  # otherwise the folder was replaced after it was collected
        found = Submitted(noted.time, noted.remarks, noted.late, noted.platform)
    elif rules.exchange is not None:
        time, more = exchange.time_of(rules.exchange, assignment, student, claimed)
        found = Submitted(time, (*remarks, *more))
    else:
        found = Submitted(claimed, tuple(remarks), is_claimed=claimed is not None)
    if found.time is not None and found.time > now:
        remarks = [*found.remarks, "The time of submission lies in the future."]
        found = Submitted(found.time, tuple(remarks), found.late, found.platform, found.is_claimed)
    return found


def _read_stamp(path: Path, remarks: list[str]) -> datetime | None:
    try:
        return parse_time(read_regular(path, 200).decode("utf-8-sig"))
    except FileNotFoundError:
        return None
    except ValueError:
        remarks.append(f"The file {TIMESTAMP} holds no time.")
        return None
