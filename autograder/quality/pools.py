"""Pools: mistakes in different parts in one submission, so that far fewer submissions have to be graded.

A mistake costs points of its own part only. So the outcomes of its part show whether it is found and named, whatever
mistakes there are in other parts. Only one thing is not seen in a pool: a mistake that costs a point of another part
which has a mistake too. A pool whose grading is not as expected says nothing; its cases are then graded alone.
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
    for case in cases:
        fitting = (group for group in groups if _can_be_pooled(case) and all(_fit(case, other) for other in group))
        group = next(fitting, None)
        if group is None:
            groups.append([case])
        else:
            group.append(case)
    return [some for group in groups for some in ([group] if _is_possible(assignment, group) else _alone(group))]


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
    return case.kind in ("mutants", "blind/mistakes") and all("find" in edit for edit in case.edits)


def _fit(case: Case, other: Case) -> bool:
    if not _can_be_pooled(other) or case.base != other.base or case.part == other.part:
        return False
    return not any(_touch(one, two) or _touch(two, one) for one in case.edits for two in other.edits)


def _touch(one: dict[str, str], two: dict[str, str]) -> bool:
    return one["file"] == two["file"] and (one["find"] in two["find"] or one["find"] in two["replace"])


def _is_possible(assignment: Assignment, group: list[Case]) -> bool:
    if len(group) == 1:
        return True
    with TemporaryDirectory() as folder:
        try:
            pooled(group, 0).write(assignment, Path(folder) / "pool")
        except ValueError:  # the edits overlap in a way that their texts do not show
            return False
    return True


def _alone(group: list[Case]) -> list[list[Case]]:
    return [[case] for case in group]
