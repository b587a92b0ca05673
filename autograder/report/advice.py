"""What to mend first: the order in which a student's lost checks are shown."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from autograder.results import Result
from ebmcourse.checking.outcome import Outcome


@dataclass(slots=True)
class Advice:
    """A check to mend, and the skipped checks that wait for it, directly or through others."""

    check: Outcome
    opens: list[Outcome] = field(default_factory=list)

    @property
    def worth(self) -> float:
        """Points within reach once this check passes."""
        return self.check.lost + sum(check.lost for check in self.opens)


def what_to_mend(result: Result) -> list[Advice]:
    """The lost checks, the one worth most first; among equals, in the order of the assignment.

    A skipped check is no mistake of its own: it stands under each check that its diagnosis names by id. Only
    a skipped check that names no lost check stands for itself.
    """
    lost = [check for check in result.checks if not check.passed]
    waits_for = {
        check.id: [other for other in lost if other is not check and _names(check.diagnosis or "", other.id)]
        for check in lost
        if check.status == "skipped"
    }
    roots = {check.id: _roots(check, waits_for) for check in lost}
    advice = {check.id: Advice(check) for check in lost if not roots[check.id]}
    for check in lost:
        for root in roots[check.id]:
            advice[root].opens.append(check)
    return sorted(advice.values(), key=lambda entry: -entry.worth)


def _roots(check: Outcome, waits_for: dict[str, list[Outcome]]) -> list[str]:
    """Ids of the checks where the chains of waiting that begin at `check` end; none if it does not wait."""
    roots: dict[str, None] = {}
    seen: set[str] = set()
    ahead = list(waits_for.get(check.id, []))
    while ahead:
        other = ahead.pop(0)
        if other.id in seen:
            continue
        seen.add(other.id)
        if further := waits_for.get(other.id):
            ahead.extend(further)
        else:
            roots[other.id] = None
    return list(roots)


def _names(text: str, id_: str) -> bool:
    """Whether `id_` stands in `text` as a whole: "needs 3.2a/shape." names it, "3.2a/shape-of-y" does not."""
    return re.search(rf"(?<![\w/.-]){re.escape(id_)}(?![\w/-])(?!\.\w)", text) is not None
