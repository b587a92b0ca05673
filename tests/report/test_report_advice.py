"""What to fix first."""

from __future__ import annotations

import re
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_sample import sample_class

from autograder.report.advice import what_to_fix
from autograder.results import Result
from ebmcourse.checking.observation import decode, encode
from ebmcourse.checking.observer import Call, NoObservation, Observer
from ebmcourse.checking.outcome import NOT_IMPLEMENTED, Outcome


def result(*checks: tuple[str, str, float, str | None]) -> Result:
    """A result with these checks; a check `2/x` belongs to part 2, and one without a slash to part 1."""
    made = [
        Outcome(
            id_,
            id_.split("/")[0] if "/" in id_ else "1",
            id_,
            status,
            most if status == "passed" else 0.0,
            most,
            True,
            "",
            why,
        )
        for id_, status, most, why in checks
    ]
    return Result("demo", "s001", 0.0, 1.0, "", "", 0, [], made)


def order(given: Result) -> list[tuple[str, list[str]]]:
    """For each entry the ids of its checks, separated by blanks, and the ids of the checks that wait for them."""
    return [
        (" ".join(check.id for check in entry.checks), [other.id for other in entry.opens])
        for entry in what_to_fix(given)
    ]


def test_most_points_first_and_ties_in_the_order_of_the_assignment() -> None:
    lost = result(
        ("a", "failed", 1, None), ("b", "passed", 5, None), ("c", "error", 2, None), ("d", "timeout", 1, None)
    )
    assert order(lost) == [("c", []), ("a", []), ("d", [])]


def test_a_check_counts_with_the_points_of_those_that_wait_for_it() -> None:
    lost = result(
        ("1/root", "failed", 1, None),
        ("1/big", "failed", 2, None),
        ("1/next", "skipped", 1, "Runs once `1/root` passes."),
        ("1/last", "skipped", 1, "Runs once 1/next passes."),
    )
    assert order(lost) == [("1/root", ["1/next", "1/last"]), ("1/big", [])]


def test_checks_that_fail_in_the_same_way_are_one_thing_to_fix() -> None:
    crash = "Your program stopped with NameError."
    lost = result(
        ("a", "error", 1, crash),
        ("b", "failed", 1, "The sign is wrong."),
        ("c", "error", 1, crash),
        ("d", "skipped", 1, "Skipped until `c` passes, and `a`."),
        ("e", "failed", 1, None),
        ("f", "failed", 1, None),
    )
    assert order(lost) == [("a c", ["d"]), ("b", []), ("e", []), ("f", [])]


def test_wrong_values_of_several_parts_are_several_things_to_fix() -> None:
    nameless, crash = "The numbers are different from those of a correct solution.", "Your program stopped."
    lost = result(
        ("1/a", "failed", 2, nameless),
        ("1/b", "failed", 2, nameless),
        ("2/a", "failed", 3, nameless),
        ("2/b", "timeout", 1, "No answer within 20 seconds: is there an endless loop?"),
        ("3/b", "timeout", 1, "No answer within 20 seconds: is there an endless loop?"),
        ("3/c", "error", 0.1, crash),
        ("4/c", "error", 0.1, crash),
        ("5/a", "failed", 1, NOT_IMPLEMENTED),
        ("6/a", "failed", 1, NOT_IMPLEMENTED),
    )
    assert [checks for checks, _ in order(lost)] == ["1/a 1/b", "2/a", "2/b", "3/b", "3/c 4/c", "5/a 6/a"]


def test_stubs_come_last_whatever_they_are_worth() -> None:
    lost = result(
        ("a", "failed", 9, NOT_IMPLEMENTED),
        ("b", "failed", 1, "The sign is wrong."),
        ("c", "failed", 9, NOT_IMPLEMENTED),
    )
    assert order(lost) == [("b", []), ("a c", [])]
    assert [entry.begun for entry in what_to_fix(lost)] == [True, False]


def test_a_stub_is_recognized_by_the_diagnosis_of_the_observer() -> None:
    answers = [{"error": {"kind": "todo"}, "seconds": 0.0}]
    process = Mock(ask=lambda frame, seconds: encode({"answers": answers, "ticket": decode(frame)["ticket"]}))
    call = Call("1/a", Path(__file__), "probe", (), 0, 1.0)
    with pytest.raises(NoObservation, match=f"^{re.escape(NOT_IMPLEMENTED)}$"):
        Observer(process, {}, {}, messages=False, budget=1.0).observe(call)


def test_an_id_is_named_only_as_a_whole() -> None:
    lost = result(
        ("1/shape", "failed", 1, None),
        ("1/shape-of-y", "failed", 1, None),
        ("1/z", "skipped", 1, "Needs 1/shape-of-y."),
    )
    assert order(lost) == [("1/shape-of-y", ["1/z"]), ("1/shape", [])]


def test_a_skipped_check_without_a_known_reason_is_listed_on_its_own() -> None:
    assert order(result(("a", "skipped", 1, None), ("b", "skipped", 1, "No data."))) == [("a", []), ("b", [])]


def test_two_skipped_checks_that_name_each_other_are_both_listed() -> None:
    assert order(result(("a", "skipped", 1, "waits for b"), ("b", "skipped", 1, "waits for a"))) == [
        ("a", []),
        ("b", []),
    ]


@given(st.lists(st.tuples(st.sampled_from(["failed", "skipped"]), st.sets(st.integers(0, 7))), max_size=8))
def test_every_check_that_lost_points_is_shown(entries: list[tuple[str, set[int]]]) -> None:
    lost = result(
        *((f"c{n}", status, 1.0, " ".join(f"c{m}" for m in sorted(named))) for n, (status, named) in enumerate(entries))
    )
    shown = [id_ for first, opens in order(lost) for id_ in (*first.split(), *opens)]
    assert set(shown) == {check.id for check in lost.checks}


def test_the_sample_class_is_told_exactly_what_it_lost() -> None:
    for given_ in sample_class()[0]:
        told = {id_ for first, opens in order(given_) for id_ in (*first.split(), *opens)}
        assert told == {check.id for check in given_.checks if not check.passed}
