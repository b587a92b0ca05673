"""Deadlines and late policies: `course.toml`, in the folder of the course. Every entry is optional::

    timezone = "Europe/Berlin"               # of times without one; default UTC
    exchange = "/srv/nbgrader/exchange/ebmcourse/inbound"   # nbgrader's inbound folder, if there is one

    [late]
    policy = "percent"                       # none (default), zero, percent
    per_day = 10                             # percent of the points, for each started day
    floor = 50                               # percent of the points that are never deducted
    grace_minutes = 10
    days = 3                                 # late days that each student may spend, over all assignments

    [late.days_of]                           # a different number for some students
    s007 = 5

    [assignments.jem]
    due = 2026-11-30T23:59:00
    policy = "zero"                          # policy, per_day and floor can differ from [late] here

    [assignments.jem.extensions]             # a different deadline for some students
    s003 = 2026-12-03T23:59:00

    [assignments.jem.submitted]              # the time of submission, if the recorded one is wrong
    s009 = 2026-11-30T12:00:00

A day is 24 hours, even if the clocks change in between. Late days are spent in the order of the deadlines. With the
policy `zero`, they are spent only if there are enough of them.
"""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

Kind = Literal["none", "zero", "percent"]
Key = tuple[str, str]  # assignment, student


@dataclass(frozen=True)
class Policy:
    """What is deducted for each late day; both numbers are percentages of the points."""

    kind: Kind = "none"
    per_day: float = 0.0
    floor: float = 0.0


@dataclass(frozen=True)
class Rules:
    """The content of `course.toml`. All times have a time zone; `zone` is None if the file names none."""

    due: dict[str, datetime] = field(default_factory=dict)
    policies: dict[str, Policy] = field(default_factory=dict)
    extensions: dict[Key, datetime] = field(default_factory=dict)
    submitted: dict[Key, datetime] = field(default_factory=dict)
    policy: Policy = Policy()  # of assignments that `course.toml` does not name
    grace: timedelta = timedelta()
    days: int = 0
    days_of: dict[str, int] = field(default_factory=dict)
    exchange: Path | None = None
    zone: tzinfo | None = None


def read_rules(course: Path) -> Rules:
    """Return the rules in `course.toml`, or the defaults without it. Raises ValueError for a mistake in the file."""
    path = course / "course.toml"
    if not path.is_file():
        return Rules()
    try:
        about = tomllib.loads(path.read_text("utf-8-sig"))
        _known(about, "timezone exchange late assignments", "it")
        zone = ZoneInfo(about["timezone"]) if "timezone" in about else None
        late = about.get("late", {})
        _known(late, "policy per_day floor grace_minutes days days_of", "[late]")
        # Without per_day here, each assignment has to say its own.
        default = late if "per_day" in late or late.get("policy") != "percent" else {}
        rules = Rules(
            policy=_policy(default),
            grace=timedelta(minutes=_amount(late.get("grace_minutes", 0), "grace_minutes")),
            days=int(_amount(late.get("days", 0), "days")),
            days_of={str(who): int(_amount(n, f"days of {who}")) for who, n in late.get("days_of", {}).items()},
            exchange=course / about["exchange"] if "exchange" in about else None,
            zone=zone,
        )
        for name, entry in about.get("assignments", {}).items():
            if not (course / "solutions" / name).is_dir():
                raise ValueError(f"there is no assignment {name!r}")
            _known(entry, "due policy per_day floor extensions submitted", f"[assignments.{name}]")
            rules.policies[name] = _policy(late | entry)
            if "due" in entry:
                rules.due[name] = _moment(entry["due"], zone, f"due of {name}")
            for table in ("extensions", "submitted"):
                for student, value in entry.get(table, {}).items():
                    getattr(rules, table)[name, student] = _moment(value, zone, f"{table} of {student}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, AttributeError, TypeError, ZoneInfoNotFoundError) as error:
        raise ValueError(f"{path} cannot be used: {error}.") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}.") from error
    return rules


def _policy(about: Mapping[str, Any]) -> Policy:
    kind = about.get("policy", "none")
    if kind not in get_args(Kind):
        raise ValueError(f"the policy {kind!r} is unknown: choose one of {', '.join(get_args(Kind))}")
    per_day, floor = (_amount(about.get(name, 0), name) for name in ("per_day", "floor"))
    if per_day > 100 or floor > 100:
        raise ValueError("per_day and floor are percent, at most 100")
    if kind == "percent" and not per_day:
        raise ValueError('the policy "percent" needs per_day, the percent that a day costs')
    return Policy(kind, per_day, floor)


def _known(table: Mapping[str, Any], keys: str, where: str) -> None:
    if unknown := sorted(set(table) - set(keys.split())):
        raise ValueError(f"{where} has no entry {unknown[0]!r}; known are {', '.join(keys.split())}")


def _amount(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{name} is a number of at least 0, not {value!r}")
    return float(value)


def _moment(value: object, zone: tzinfo | None, name: str) -> datetime:
    if not isinstance(value, datetime):
        written = repr(value) if isinstance(value, str) else str(value)
        raise ValueError(f"{name} is a time such as 2026-11-30T23:59:00, without quotation marks, not {written}")
    return value if value.tzinfo else value.replace(tzinfo=zone or UTC)
