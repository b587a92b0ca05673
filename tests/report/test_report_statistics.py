"""The statistics of the class page, compared with NumPy and with small examples computed by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from report_sample import sample_class

from autograder.report.statistics import check_statistics, common_mistakes, flags_of, histogram
from autograder.results import Result
from ebmcourse.checking.outcome import DIFFERENT_NUMBERS, Outcome


def result(student: str, *checks: tuple[str, str, float, str | None]) -> Result:
    made = [
        Outcome(id_, id_[0], f"title {id_}", status, points, 1.0, True, "", diagnosis)
        for id_, status, points, diagnosis in checks
    ]
    return Result("demo", student, sum(c.points for c in made), float(len(made)), "", "", 0, [], made)


def test_discrimination_is_the_item_rest_correlation() -> None:
    results, _ = sample_class(students=40, seed=3)
    points = np.array([[check.points for check in result.checks] for result in results])
    for n, entry in enumerate(check_statistics(results)):
        rest = points.sum(axis=1) - points[:, n]
        assert entry.share_passed == np.mean(points[:, n] > 0)
        assert entry.discrimination == pytest.approx(np.corrcoef(points[:, n], rest)[0, 1], abs=1e-12)


def test_discrimination_needs_three_students_with_different_points() -> None:
    alike = [result(f"s{n}", ("a", "passed", 1, None), ("b", "failed", 0, None)) for n in range(5)]
    two = [
        result("s1", ("a", "passed", 1, None), ("b", "passed", 1, None)),
        result("s2", ("a", "failed", 0, None), ("b", "failed", 0, None)),
    ]
    for results in (alike, two):
        assert [entry.discrimination for entry in check_statistics(results)] == [None, None]


def test_a_late_penalty_does_not_change_the_statistics() -> None:
    results, _ = sample_class()
    late = [replace(result, score=result.score / 2) for result in results]
    assert check_statistics(late) == check_statistics(results)


def test_only_students_who_took_a_check_count_for_it() -> None:
    results = [
        result("s1", ("a", "passed", 1, None)),
        result("s2", ("a", "passed", 1, None), ("b", "failed", 0, None)),
    ]
    assert [(e.id, e.taken, e.passed) for e in check_statistics(results)] == [("a", 2, 2), ("b", 1, 0)]


def test_mistakes_count_each_student_once_and_name_the_parts() -> None:
    sign = "The sign is wrong."
    results = [
        result("s1", ("a", "failed", 0, sign), ("b", "failed", 0, sign)),
        result("s2", ("a", "failed", 0, sign), ("b", "skipped", 0, "Runs once a passes.")),
        result("s3", ("a", "passed", 1, None), ("b", "timeout", 0, None)),
    ]
    first, second = common_mistakes(results)
    assert (first.text, first.named, first.parts, first.students) == (sign, True, ("a", "b"), ("s1", "s2"))
    assert (second.text, second.named, second.students) == ("title b", False, ("s3",))


def test_checks_of_different_parts_without_a_named_mistake_are_not_the_same_mistake() -> None:
    results = [
        result("s1", ("a", "failed", 0, DIFFERENT_NUMBERS), ("b", "failed", 0, DIFFERENT_NUMBERS)),
        result("s2", ("b", "failed", 0, DIFFERENT_NUMBERS)),
    ]
    found = [(mistake.parts, mistake.students) for mistake in common_mistakes(results)]
    assert found == [(("b",), ("s1", "s2")), (("a",), ("s1",))]


def test_an_endless_loop_is_one_mistake_however_long_was_waited() -> None:
    late = [f"No answer within {seconds} seconds: is there an endless loop?" for seconds in (10, 2.5)]
    results = [result("s1", ("a", "timeout", 0, late[0]), ("b", "timeout", 0, late[1]))]
    (mistake,) = common_mistakes(results)
    assert mistake.text == "No answer in time: is there an endless loop?" and mistake.parts == ("a", "b")


def test_parts_of_a_mistake_are_in_the_order_of_the_assignment() -> None:
    results = [
        result("s1", ("a", "passed", 1, None), ("b", "failed", 0, "No.")),
        result("s2", ("a", "failed", 0, "No."), ("b", "passed", 1, None)),
    ]
    assert common_mistakes(results)[0].parts == ("a", "b")


def test_rare_flags_come_first() -> None:
    results = [replace(result("s1"), flags=["many", "many"]), replace(result("s2"), flags=["many", "few"])]
    assert flags_of(results) == [("few", ["s2"]), ("many", ["s1", "s2"])]


def test_the_histogram_counts_each_student_once() -> None:
    shares = [0, 0.05, 0.1, 0.3, 0.6, 0.7, 0.99, 1.0]
    results = [replace(result("s"), score=share * 7, max_score=7.0) for share in shares]
    assert histogram(results) == [2, 1, 0, 1, 0, 0, 1, 1, 0, 2]


def test_an_assignment_without_points_is_in_the_first_bin() -> None:
    assert histogram([replace(result("s"), score=0.0, max_score=0.0)])[0] == 1
