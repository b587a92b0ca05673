"""What to fix first: the mistakes behind the checks that a student did not pass, in the order of the page."""

import re
from dataclasses import dataclass, field

from autograder.results import Result
from ebmcourse.checking.outcome import Outcome


@dataclass(slots=True)
class Advice:
    """One thing to fix: `checks`, which failed in the same way, and the skipped checks that wait for one of them."""

    checks: list[Outcome]
    opens: list[Outcome] = field(default_factory=list)

    @property
    def worth(self) -> float:
        """The points to gain if these checks pass."""
        return sum(check.lost for check in (*self.checks, *self.opens))

    @property
    def begun(self) -> bool:
        """Whether there is a mistake to fix: a stub is not a mistake."""
        return not self.checks[0].is_unwritten


def what_to_fix(result: Result) -> list[Advice]:
    """Return everything that lost points: most points first, stubs last, otherwise in the order of the assignment.

    Checks with the same status and diagnosis are one thing to fix: within a part always, and across parts if they
    crashed or are stubs. A wrong value in two parts has two causes, even if the diagnosis, such as “The numbers are
    different …”, is the same. A skipped check is listed under the check that it waits for, directly or through others;
    if it names no such check, it is listed on its own.
    """
    waits = waiting(result)
    advice: dict[object, Advice] = {}
    of_check: dict[str, Advice] = {}
    for check in result.checks:
        if check.passed or waits.get(check.id):
            continue
        key: object = check.id
        if check.diagnosis and check.status != "skipped":
            has_one_cause = check.status == "error" or check.is_unwritten
            key = (check.status, check.diagnosis, None if has_one_cause else check.part)
        of_check[check.id] = advice.setdefault(key, Advice([]))
        of_check[check.id].checks.append(check)
    for check in result.checks:
        if waits.get(check.id):
            for entry in {id(of_check[root]): of_check[root] for root in _roots(check.id, waits)}.values():
                entry.opens.append(check)
    return sorted(advice.values(), key=lambda entry: (not entry.begun, -entry.worth))


def waiting(result: Result) -> dict[str, list[Outcome]]:
    """Map each skipped check to the checks named in its diagnosis, unless they wait for each other in a circle."""
    lost = [check for check in result.checks if not check.passed]
    waits = {
        check.id: [other for other in lost if other is not check and _names(check.diagnosis or "", other.id)]
        for check in lost
        if check.status == "skipped"
    }
    return {id_: others for id_, others in waits.items() if _roots(id_, waits)}


def _roots(id_: str, waits: dict[str, list[Outcome]]) -> list[str]:
    """Return the ids of the checks that `id_` waits for in the end; none if checks wait for each other in a circle."""
    roots: dict[str, None] = {}
    seen: set[str] = set()
    ahead = list(waits[id_])
    while ahead:
        other = ahead.pop(0).id
        if other in seen:
            continue
        seen.add(other)
        if further := waits.get(other):
            ahead.extend(further)
        else:
            roots[other] = None
    return list(roots)


def _names(text: str, id_: str) -> bool:
    """Whether `text` contains `id_` as a whole: "needs 3.2a/shape." does, "3.2a/shape-of-y" does not."""
    return re.search(rf"(?<![\w/.-]){re.escape(id_)}(?![\w/-])(?!\.\w)", text) is not None
