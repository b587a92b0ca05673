"""Pools: mistakes in different parts in one submission, so that far fewer submissions have to be graded.

A mistake costs points of its own part only. So the outcomes of its part show whether it is found and named, whatever
mistakes there are in other parts. Only one thing is not seen in a pool: a mistake that costs a point of another part
which has a mistake too. A case that is not graded as expected in a pool is graded again, alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from autograder.assignment import Assignment
from autograder.quality.cases import Case
from autograder.results import Result


def pools(assignment: Assignment, cases: Sequence[Case]) -> list[list[Case]]:
    """Groups of cases; of each group, all have different parts, and their edits can be made in one submission."""
    groups: list[list[Case]] = []
    left = list(cases)
    while left:
        found: list[list[Case]] = []
        for case in left:
            group = next((group for group in found if all(_fit(case, other) for other in group)), None)
            if group is None:
                found.append([case])
            else:
                group.append(case)
        left = []
        for group in found:
            together, others = _possible(assignment, group)
            groups.append(together)
            left += others
    return groups


def pooled(group: list[Case], number: int) -> Case:
    """The cases of a group as one case; a case that is alone stays as it is."""
    if len(group) == 1:
        return group[0]
    return replace(group[0], name=f"pool-{number}", edits=tuple(edit for case in group for edit in case.edits))


def as_if_alone(case: Case, group: list[Case], result: Result) -> Result:
    """The result of a group without what the other cases cost."""
    others = {other.part for other in group} - {case.part}
    checks = [
        replace(check, status="passed", points=check.max_points, diagnosis=None) if check.part in others else check
        for check in result.checks
    ]
    return replace(result, checks=checks, score=sum(check.points for check in checks))


def _can_be_pooled(case: Case) -> bool:
    edits = all(edit.keys() & {"find", "append", "after"} for edit in case.edits)
    return edits and case.kind in ("mutants", "blind/mistakes")


def _fit(case: Case, other: Case) -> bool:
    if not (_can_be_pooled(case) and _can_be_pooled(other)) or case.base != other.base or case.part == other.part:
        return False
    return not any(_touch(one, two) or _touch(two, one) for one in case.edits for two in other.edits)


def _touch(one: dict[str, str], two: dict[str, str]) -> bool:
    texts = (two.get(key, "") for key in ("find", "replace", "append", "after"))
    return one["file"] == two["file"] and "find" in one and any(one["find"] in text for text in texts)


def _possible(assignment: Assignment, group: list[Case]) -> tuple[list[Case], list[Case]]:
    """Split a group into cases whose edits can be made one after the other, and the others.

    Edits may overlap in a way that their texts do not show.
    """
    if _can_be_written(assignment, group):
        return group, []
    together: list[Case] = []
    for case in group:
        if _can_be_written(assignment, [*together, case]):
            together.append(case)
    return together, [case for case in group if case not in together]


def _can_be_written(assignment: Assignment, group: list[Case]) -> bool:
    if len(group) == 1:
        return True
    with TemporaryDirectory() as folder:
        try:
            pooled(group, 0).write(assignment, Path(folder) / "pool")
        except ValueError:
            return False
    return True
