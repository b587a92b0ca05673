"""The time of a submission.

The first of these sources that has a time is used: `course.toml`; the record of `autograder collect`; the name of the
folder in the exchange; `timestamp.txt` in the submission, which students can write.
"""

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
    """The time of a submission, if it is known, and remarks for the instructor."""

    time: datetime | None = None
    remarks: tuple[str, ...] = ()
    late: bool | None = None  # by the platform's own deadline; None if unknown
    platform: str = ""
    is_claimed: bool = False  # the only source of the time is a file that the student can write


def submission_time(folder: Path, rules: Rules, now: datetime, noted: Noted | None = None) -> Submitted:
    """Return the time of the submission in `submitted/<student>/<assignment>`.

    `noted` is the record of `autograder collect`. Nothing that a student does raises an exception.
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
