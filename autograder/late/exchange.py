"""The inbound folder of nbgrader's exchange, in which students can write.

A submission is a folder `<user>+<assignment>+<time>[+<random>]`. The student's own process makes it, and so chooses its
name and its files, but neither its owner nor the time at which the system last saw a change in it.
"""

from __future__ import annotations

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

# nbgrader names a folder first and fills it then; a slow copy takes minutes, not hours.
COPYING = timedelta(minutes=15)
MAX_LISTED = 10_000
_NAME = re.compile(r"(?P<user>[^+]+)\+(?P<assignment>[^+]+)\+(?P<time>[^+]+)(?:\+[^+]*)?")


@dataclass(frozen=True)
class Name:
    """What the name of a folder in the exchange says; its time is None where it cannot be read."""

    user: str
    assignment: str
    time: datetime | None


def inbound(course: Path, rules: Rules) -> Path:
    """The inbound folder: the one that `course.toml` names, else nbgrader's for the course.

    Raises ValueError where that is not known or not there.
    """
    path = rules.exchange
    if path is None:
        root = os.environ.get("NBGRADER_EXCHANGE") or "/usr/local/share/nbgrader/exchange"
        path = Path(root, _course_id(course), "inbound")
    if not path.is_dir():
        raise ValueError(f'The exchange has no folder {path}: write exchange = "…/inbound" into course.toml.')
    return path


def _course_id(course: Path) -> str:
    """What `nbgrader_config.py` says; it is not run."""
    config = course / "nbgrader_config.py"
    text = config.read_text("utf-8") if config.is_file() else ""
    match = re.search(r"""^c\.CourseDirectory\.course_id\s*=\s*(["'])([^"'/]+)\1""", text, re.MULTILINE)
    if not match:
        raise ValueError(f'{config} does not say the course_id: write exchange = "…/inbound" into course.toml.')
    return match[2]


def parse_name(name: str) -> Name | None:
    """The parts of a folder's name; None for a name that nbgrader does not give."""
    match = _NAME.fullmatch(name)
    if not match:
        return None
    try:
        time = parse_time(match["time"])
    except ValueError:
        time = None
    return Name(match["user"], match["assignment"], time)


def other_owner(user: str, uid: int) -> str | None:
    """Whose a folder is that should be `user`'s; "" where it is `user`'s, None where the system has no such user."""
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
    """The last time that a folder's name can have, if the folder was last changed then: it is named before."""
    return datetime.fromtimestamp(changed, UTC) + COPYING


def changed_later(time: datetime, changes: Iterable[float]) -> list[str]:
    """A remark where one of the changes (the system's times, in seconds) was made after the time of submission."""
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
    """The time of the submission that `nbgrader collect` took, and remarks on it.

    That is the one with the `claimed` time; where there is none, the last one counts.
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
