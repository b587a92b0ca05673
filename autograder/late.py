"""Late policies: what a mark loses by the time of submission. Result files stay as grading wrote them.

Deadlines and policies stand in `course.toml`, in the folder of the course; all of it may be absent::

    timezone = "Europe/Berlin"               # of times without one; default UTC
    exchange = "/srv/nbgrader/exchange/ebmcourse/inbound"   # where there is one: checks times against it

    [late]
    policy = "percent"                       # none (default), zero, percent
    per_day = 10                             # percent of the points reached, for each day begun
    floor = 50                               # percent of the points reached that always stay
    grace_minutes = 10
    days = 3                                 # late days that each student may spend, over all assignments

    [late.days_of]                           # another number for some
    s007 = 5

    [assignments.jem]
    due = 2026-11-30T23:59:00
    policy = "zero"                          # what [late] says may be said otherwise here (policy, per_day, floor)

    [assignments.jem.extensions]             # another deadline for some
    s003 = 2026-12-03T23:59:00

    [assignments.jem.submitted]              # the time of submission, where the instructor knows it better
    s009 = 2026-11-30T12:00:00

Late days are spent in the order of the deadlines. Where the policy is `zero`, they are spent only if they suffice.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from autograder.files import read_regular
from autograder.results import Result
from autograder.text import number

Kind = Literal["none", "zero", "percent"]
Key = tuple[str, str]  # assignment, student

TIMESTAMP = "timestamp.txt"
# nbgrader names a folder first and fills it then; a slow copy takes minutes, not hours.
COPYING = timedelta(minutes=15)
_STAMP = re.compile(r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?) ?(Z|UTC|GMT|[+-]\d\d:?\d\d)?")


@dataclass(frozen=True)
class Policy:
    """What one assignment takes off for each late day; both numbers are percent of the points reached."""

    kind: Kind = "none"
    per_day: float = 0.0
    floor: float = 0.0


@dataclass(frozen=True)
class Rules:
    """What `course.toml` says. Times know their zone."""

    due: dict[str, datetime] = field(default_factory=dict)
    policies: dict[str, Policy] = field(default_factory=dict)
    extensions: dict[Key, datetime] = field(default_factory=dict)
    submitted: dict[Key, datetime] = field(default_factory=dict)
    grace: timedelta = timedelta()
    days: int = 0
    days_of: dict[str, int] = field(default_factory=dict)
    exchange: Path | None = None


@dataclass(frozen=True)
class Submitted:
    """When a submission was handed in, as far as that is known, and what is odd about it."""

    time: datetime | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lateness:
    """What the time of submission means for one mark. `taken` is in points."""

    submitted: datetime | None
    due: datetime | None
    days: int = 0
    free_days: int = 0
    taken: float = 0.0
    remarks: tuple[str, ...] = ()

    @property
    def sentences(self) -> list[str]:
        """What a student should read about it; empty where there is nothing to say."""
        if not self.days:
            return list(self.remarks)
        late = f"Handed in {_count(self.days, 'day')} late."
        if self.free_days:
            late += f" {_count(self.free_days, 'late day')} spent."
        late += f" {_count(self.taken, 'point')} taken off." if self.taken else " Nothing is taken off."
        return [late, *self.remarks]


def read_rules(course: Path) -> Rules:
    """The rules in `course.toml`; none where there is no such file. Raises ValueError for what it cannot mean."""
    path = course / "course.toml"
    if not path.is_file():
        return Rules()
    try:
        about = tomllib.loads(path.read_text("utf-8"))
        _known(about, "timezone exchange late assignments", "it")
        zone: tzinfo = ZoneInfo(about.get("timezone", "UTC"))
        late = about.get("late", {})
        _known(late, "policy per_day floor grace_minutes days days_of", "[late]")
        rules = Rules(
            grace=timedelta(minutes=_amount(late.get("grace_minutes", 0), "grace_minutes")),
            days=int(_amount(late.get("days", 0), "days")),
            days_of={str(who): int(_amount(n, f"days of {who}")) for who, n in late.get("days_of", {}).items()},
            exchange=course / about["exchange"] if "exchange" in about else None,
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


def submission_time(folder: Path, rules: Rules, now: datetime) -> Submitted:
    """When the submission in `submitted/<student>/<assignment>` was handed in.

    The instructor's word in `course.toml` counts first, then the name that the exchange gave the folder, then
    `timestamp.txt`, which students can write. Never raises for what a student did.
    """
    assignment, student = folder.name, folder.parent.name
    if (assignment, student) in rules.submitted:
        return Submitted(rules.submitted[assignment, student])
    remarks: list[str] = []
    claimed = _read_stamp(folder / TIMESTAMP, remarks)
    time = claimed
    if rules.exchange is not None:
        time = _exchanged(rules.exchange, assignment, student, claimed, remarks)
    if time is not None and time > now:
        remarks.append("The time of submission lies in the future.")
    return Submitted(time, tuple(remarks))


def lateness(rules: Rules, results: Iterable[Result], times: Mapping[Key, Submitted]) -> dict[Key, Lateness]:
    """What each result loses, by assignment and student: of these three alone, and of no clock."""
    spent: dict[str, int] = {}
    found: dict[Key, Lateness] = {}
    never = datetime.max.replace(tzinfo=UTC)
    for result in sorted(results, key=lambda r: (rules.due.get(r.assignment, never), r.assignment, r.student)):
        key = result.assignment, result.student
        handed_in = times.get(key, Submitted())
        due = rules.extensions.get(key, rules.due.get(result.assignment))
        policy = rules.policies.get(result.assignment, Policy())
        if due is None:
            found[key] = Lateness(handed_in.time, None, remarks=handed_in.remarks)
            continue
        if handed_in.time is None:
            remarks = (*handed_in.remarks, "The time of submission is not known: it counts as in time.")
            found[key] = Lateness(None, due, remarks=remarks)
            continue
        days = max(0, math.ceil((handed_in.time - due - rules.grace) / timedelta(days=1)))
        left = rules.days_of.get(result.student, rules.days) - spent.get(result.student, 0)
        free = _spend(policy, days, max(0, left))
        spent[result.student] = spent.get(result.student, 0) + free
        taken = round(result.score * _share(policy, days - free), 6)
        found[key] = Lateness(handed_in.time, due, days, free, taken, handed_in.remarks)
    return found


def of_results(results: Iterable[Result], submitted: Path | None, course: Path) -> dict[Key, Lateness]:
    """The lateness of all results of a course (all assignments together: late days are shared between them).

    Reads `course.toml` and the times below `submitted`. Raises ValueError where there are deadlines and no such folder.
    """
    results = list(results)
    rules = read_rules(course)
    if submitted is None or not submitted.is_dir():
        if any(result.assignment in rules.due for result in results):
            raise ValueError(
                "course.toml has deadlines: say with --submitted where the submissions and their times are."
            )
        return lateness(rules, results, {})
    now = datetime.now(UTC)
    times = {
        (r.assignment, r.student): submission_time(submitted / r.student / r.assignment, rules, now) for r in results
    }
    return lateness(rules, results, times)


def with_penalty(result: Result, late: Lateness | None) -> Result:
    """The result with the score that counts; the checks keep their points."""
    return replace(result, score=max(0.0, round(result.score - late.taken, 6))) if late and late.taken else result


def _spend(policy: Policy, days: int, left: int) -> int:
    if policy.kind == "none":
        return 0
    if policy.kind == "zero":
        return days if days <= left else 0
    return min(days, left)


def _share(policy: Policy, days: int) -> float:
    """The share of the points that so many late days take."""
    if days <= 0 or policy.kind == "none":
        return 0.0
    return 1.0 if policy.kind == "zero" else min(policy.per_day * days, 100.0 - policy.floor) / 100.0


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


def _moment(value: object, zone: tzinfo, name: str) -> datetime:
    if not isinstance(value, datetime):
        raise ValueError(f"{name} is a time such as 2026-11-30T23:59:00, without quotation marks, not {value!r}")
    return value if value.tzinfo else value.replace(tzinfo=zone)


def _read_stamp(path: Path, remarks: list[str]) -> datetime | None:
    try:
        return parse_time(read_regular(path, 200).decode("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        remarks.append(f"The file {TIMESTAMP} holds no time.")
        return None


def parse_time(text: str) -> datetime:
    """A time as nbgrader writes it (2026-11-30 12:00:00.000000 UTC) or in ISO form; UTC where no zone is given.

    Raises ValueError for anything else, names of zones such as CEST included: they are not unique.
    """
    match = _STAMP.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text[:40]!r} is no time such as 2026-11-30 12:00:00 UTC")
    zone = match[3] if match[3] and match[3][0] in "+-" else "+00:00"
    return datetime.fromisoformat(f"{match[1]} {match[2]}{zone}")


def _exchanged(
    exchange: Path, assignment: str, student: str, claimed: datetime | None, remarks: list[str]
) -> datetime | None:
    """The time of the collected submission in the exchange, whose name and times of files are harder to forge.

    The collected one is that with the claimed time; without it, it cannot be told, and the last one counts.
    """
    folders: dict[datetime, Path] = {}
    for path in sorted(exchange.glob(f"{_literal(student)}+{_literal(assignment)}+*")):
        try:
            folders[parse_time(path.name[len(f"{student}+{assignment}+") :].split("+")[0])] = path
        except ValueError:
            remarks.append("A submission in the exchange has a name that nbgrader does not give.")
    if not folders:
        remarks.append("The exchange holds no such submission.")
        return claimed
    time = claimed
    if claimed not in folders:
        remarks.append(f"No submission in the exchange has the time in {TIMESTAMP}: the last one counts.")
        time = max(folders)
    assert time is not None
    changed = max(datetime.fromtimestamp(entry.lstat().st_ctime, UTC) for entry in _tree(folders[time]))
    if changed > time + COPYING:
        remarks.append(
            f"It was changed in the exchange {_span(changed - time)} after its time of submission"
            f" ({changed:%Y-%m-%d %H:%M} UTC)."
        )
    return time


def _tree(folder: Path) -> list[Path]:
    return [folder, *(Path(where) / name for where, dirs, files in os.walk(folder) for name in (*dirs, *files))]


def _literal(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def _span(time: timedelta) -> str:
    hours = time / timedelta(hours=1)
    return _count(round(time / timedelta(minutes=1)), "minute") if hours < 2 else _count(round(hours), "hour")


def _count(amount: float, what: str) -> str:
    return f"{number(amount)} {what}{'' if amount == 1 else 's'}"
