"""The inbound folder of nbgrader's exchange, to which students can write.

A submission is a folder `<user>+<assignment>+<time>[+<random>]`. The student's own process creates it and chooses its
name and its files, but not its owner or the time of its last change.
"""

import os
import pwd
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from autograder.files import items, opened
from autograder.late.course import Rules
from autograder.late.times import TIMESTAMP, parse_time
from autograder.text import on_one_line

# nbgrader names a folder before it fills it. A slow copy takes minutes, not hours.
COPYING = timedelta(minutes=15)
MAX_LISTED = 10_000
_NAME = re.compile(r"(?P<user>[^+]+)\+(?P<assignment>[^+]+)\+(?P<time>[^+]+)(?:\+[^+]*)?")


@dataclass(frozen=True)
class Name:
    """The parts of the name of a folder in the exchange; the time is None if it is not valid."""

    user: str
    assignment: str
    time: datetime | None


def inbound(course: Path, rules: Rules) -> Path:
    """Return the inbound folder: that in `course.toml`, or else nbgrader's folder of the course.

    Raises ValueError if it is unknown or does not exist.
    """
    path = rules.exchange
    if path is None:
        root = os.environ.get("NBGRADER_EXCHANGE") or "/usr/local/share/nbgrader/exchange"
        path = Path(root, _course_id(course), "inbound")
    if not path.is_dir():
        raise ValueError(f'The exchange has no folder {path}: write exchange = "…/inbound" into course.toml.')
    return path


def _course_id(course: Path) -> str:
    """Return the id of the course in `nbgrader_config.py`, which is not run."""
    config = course / "nbgrader_config.py"
    text = config.read_text("utf-8") if config.is_file() else ""
    match = re.search(r"""^c\.CourseDirectory\.course_id\s*=\s*(["'])([^"'/]+)\1""", text, re.MULTILINE)
    if not match:
        raise ValueError(f'{config} does not say the course_id: write exchange = "…/inbound" into course.toml.')
    return match[2]


def parse_name(name: str) -> Name | None:
    """Return the parts of a folder's name, or None if it is not one of nbgrader's."""
    match = _NAME.fullmatch(name)
    if not match:
        return None
    try:
        time = parse_time(match["time"])
    except ValueError:
        time = None
    return Name(match["user"], match["assignment"], time)


def other_owner(user: str, uid: int) -> str | None:
    """Return the owner of a folder if it is not `user`; "" if it is, and None if the system has no such user."""
    try:
        if pwd.getpwnam(user).pw_uid == uid:
            return ""
    except KeyError:
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user with the number {uid}"


def last_time(changed: float) -> datetime:
    """Return the latest time in the name of a folder that was last changed then; a folder is named first."""
    return datetime.fromtimestamp(changed, UTC) + COPYING


def changed_later(time: datetime, changes: Iterable[float]) -> list[str]:
    """Return a remark if one of the changes (the system's times, in seconds) is later than the time of submission."""
    changed = datetime.fromtimestamp(max(changes), UTC)
    if changed <= time + COPYING:
        return []
    span = (changed - time) / timedelta(hours=1)
    said = f"{round(60 * span)} minutes" if span < 2 else f"{round(span)} hours"
    return [
        f"It was changed in the exchange {said} after its time of submission ({changed:%Y-%m-%d %H:%M} UTC).",
    ]


def time_of(
    inbound: Path, assignment: str, student: str, claimed: datetime | None
) -> tuple[datetime | None, list[str]]:
    """Return the time of the submission that `nbgrader collect` has copied, and remarks.

    It is the one with the `claimed` time or, if there is none, the last one.
    """
    remarks: list[str] = []
    folders: dict[datetime, str] = {}
    for name in sorted(os.listdir(inbound)) if inbound.is_dir() else ():
        parts = parse_name(name)
        if parts is None or (parts.user, parts.assignment) != (student, assignment):
            continue
        if parts.time is None:
            remarks.append("A submission in the exchange has a name that nbgrader does not use.")
        else:
            folders[parts.time] = name
    if not folders:
        return claimed, [*remarks, "The exchange holds no such submission."]
    time = claimed
    if time is None or time not in folders:
        remarks.append(f"No submission in the exchange has the time in {TIMESTAMP}: the last one counts.")
        time = max(folders)
    try:
        with opened(inbound / folders[time]) as folder:
            about = os.fstat(folder)
            found = list(islice(items(folder), MAX_LISTED))
    except OSError:
        return time, [*remarks, "Its folder in the exchange is a link or cannot be read."]
    if owner := other_owner(student, about.st_uid):
        remarks.append(f"Its folder in the exchange belongs to {owner}.")
    if links := ["/".join(item.path) for item in found if item.refusal]:
        remarks.append(
            f"Its folder in the exchange contains something that is not a file ({on_one_line(links[0], limit=120)})."
        )
    remarks += changed_later(time, [about.st_ctime, *(item.about.st_ctime for item in found)])
    return time, remarks
