"""The same files under several ids are noticed."""

from __future__ import annotations

from autograder.results import Result
from autograder.twins import twins


def result(student: str, digest: str, score: float = 1.0) -> Result:
    return Result("jem", student, score, 2.0, digest, "", 0)


def test_students_with_the_same_files_stand_together():
    results = [result("s004", "a"), result("s002", "b"), result("s001", "a"), result("s003", "c")]
    assert twins(results) == [["s001", "s004"]]


def test_submissions_without_points_are_alike_anyway():
    assert twins([result("s001", "a", 0.0), result("s002", "a", 0.0)]) == []
