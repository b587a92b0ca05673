"""The late penalty of each mark. Result files are not changed."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from autograder.late.course import Key, Policy, Rules, read_rules
from autograder.late.record import read_record
from autograder.late.submitted import Submitted, submission_time
from autograder.late.times import TIMESTAMP
from autograder.results import Result
from autograder.text import number

# For instructors only.
CLAIMED = f"The time of submission comes from {TIMESTAMP} alone, which students can write."


@dataclass(frozen=True)
class Lateness:
    """The time of submission of one mark and its consequences; `taken` is the number of points deducted."""

    submitted: datetime | None
    due: datetime | None
    days: int = 0
    free_days: int = 0
    taken: float = 0.0
    remarks: tuple[str, ...] = ()

    @property
    def sentences(self) -> list[str]:
        """The sentences for the student; empty if the submission is on time."""
        remarks = [remark for remark in self.remarks if remark != CLAIMED]
        if not self.days:
            return remarks
        late = f"Handed in {_count(self.days, 'day')} late."
        if self.free_days:
            late += f" {_count(self.free_days, 'late day')} spent."
        late += f" {_count(self.taken, 'point')} deducted." if self.taken else " No points deducted."
        return [late, *remarks]


def lateness(rules: Rules, results: Iterable[Result], times: Mapping[Key, Submitted]) -> dict[Key, Lateness]:
    """Return the lateness of each result, by assignment and student. It depends on the arguments only."""
    spent: dict[str, int] = {}
    found: dict[Key, Lateness] = {}
    never = datetime.max.replace(tzinfo=UTC)
    for result in sorted(results, key=lambda r: (rules.due.get(r.assignment, never), r.assignment, r.student)):
        key = result.assignment, result.student
        handed_in = times.get(key, Submitted())
        due = rules.extensions.get(key, rules.due.get(result.assignment))
        days, remarks = _days(handed_in, due, rules.grace, key in rules.extensions)
        policy = rules.policies.get(result.assignment, rules.policy)
        left = rules.days_of.get(result.student, rules.days) - spent.get(result.student, 0)
        free = _spend(policy, days, max(0, left))
        spent[result.student] = spent.get(result.student, 0) + free
        taken = round(result.score * _share(policy, days - free), 6)
        found[key] = Lateness(handed_in.time, due, days, free, taken, (*handed_in.remarks, *remarks))
    return found


def of_results(results: Iterable[Result], submitted: Path | None, course: Path) -> dict[Key, Lateness]:
    """Return the lateness of all results of a course. Late days are shared by all assignments.

    Reads `course.toml`, and the times of submission in the folder `submitted`. Raises ValueError if there are deadlines
    but no such folder.
    """
    results = list(results)
    rules = read_rules(course)
    if submitted is None or not submitted.is_dir():
        if any(result.assignment in rules.due for result in results):
            raise ValueError("course.toml has deadlines: give the folder of the submissions with --submitted.")
        return lateness(rules, results, {})
    now = datetime.now(UTC)
    records = {name: read_record(submitted, name) for name in {result.assignment for result in results}}
    times = {}
    for result in results:
        noted = records[result.assignment].get(result.student)
        folder = submitted / result.student / result.assignment
        times[result.assignment, result.student] = submission_time(folder, rules, now, noted)
    return lateness(rules, results, times)


def without_result(graded: Mapping[str, Collection[str]], course: Path, assignment: str = "") -> dict[str, list[str]]:
    """Return the students in `course.toml` who have no result, by the table: perhaps their ids are misspelt.

    `graded` are the students with a result by assignment. Tables of other assignments are left out, and with
    `assignment` those of all others.
    """
    rules = read_rules(course)
    found: dict[str, list[str]] = {}
    for table in ("extensions", "submitted"):
        for name, student in getattr(rules, table):
            if name in graded and assignment in ("", name) and student not in graded[name]:
                found.setdefault(f"[assignments.{name}.{table}]", []).append(student)
    if strangers := sorted(rules.days_of.keys() - set().union(*graded.values())):
        found["[late.days_of]"] = strangers
    return found


def with_penalty(result: Result, late: Lateness | None) -> Result:
    """Return the result with the late penalty deducted from its score, not from its checks."""
    return replace(result, score=max(0.0, round(result.score - late.taken, 6))) if late and late.taken else result


def _days(
    handed_in: Submitted, due: datetime | None, grace: timedelta, is_extended: bool
) -> tuple[int, tuple[str, ...]]:
    """Return the number of started late days, and remarks. If only the platform says that it is late, it is one day."""
    platform = handed_in.platform
    if handed_in.time is None and handed_in.late is not None:
        if handed_in.late and is_extended:
            return 0, (f"{platform} calls it late. With the extension it counts as in time.",)
        if handed_in.late:
            return 1, (f"{platform} calls it late, but does not say how late: it counts as one day.",)
        return 0, ()
    if due is None:
        return 0, ()
    if handed_in.time is None:
        return 0, ("The time of submission is not known: it counts as in time.",)
    # In UTC: Python subtracts two times of the same zone without regard to a change of the clocks.
    over = handed_in.time.astimezone(UTC) - due.astimezone(UTC) - grace
    days = max(0, math.ceil(over / timedelta(days=1)))
    remarks = (CLAIMED,) if handed_in.is_claimed else ()
    if handed_in.late and not days:
        remarks = (*remarks, f"{platform} calls it late. By its time it is not.")
    return days, remarks


def _spend(policy: Policy, days: int, left: int) -> int:
    if policy.kind == "none":
        return 0
    if policy.kind == "zero":
        return days if days <= left else 0
    return min(days, left)


def _share(policy: Policy, days: int) -> float:
    """Return the fraction of the points that is deducted for a number of late days."""
    if days <= 0 or policy.kind == "none":
        return 0.0
    return 1.0 if policy.kind == "zero" else min(policy.per_day * days, 100.0 - policy.floor) / 100.0


def _count(amount: float, what: str) -> str:
    return f"{number(amount)} {what}{'' if amount == 1 else 's'}"
