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
    made = [
        Outcome(id_, "1", id_, status, most if status == "passed" else 0.0, most, True, "", why)
        for id_, status, most, why in checks
    ]
    return Result("demo", "s001", 0.0, 1.0, "", "", 0, [], made)


def order(given: Result) -> list[tuple[str, list[str]]]:
    """The ids of each entry's checks, with blanks between them, and of those that wait for them."""
    return [
        (" ".join(check.id for check in entry.checks), [other.id for other in entry.opens])
        for entry in what_to_fix(given)
    ]


def test_most_points_first_and_ties_in_the_order_of_the_assignment() -> None:
    lost = result(
        ("a", "failed", 1, None), ("b", "passed", 5, None), ("c", "error", 2, None), ("d", "timeout", 1, None)
    )
    assert order(lost) == [("c", []), ("a", []), ("d", [])]


def test_a_check_that_others_wait_for_comes_before_its_own_points() -> None:
    lost = result(
        ("1/root", "failed", 1, None),
        ("1/big", "failed", 2, None),
        ("1/next", "skipped", 1, "Runs once `1/root` passes."),
        ("1/last", "skipped", 1, "Runs once 1/next passes."),
    )
    assert order(lost) == [("1/root", ["1/next", "1/last"]), ("1/big", [])]


def test_checks_lost_in_the_same_way_are_one_thing_to_mend() -> None:
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


def test_what_is_not_begun_comes_last_however_much_it_is_worth() -> None:
    lost = result(
        ("a", "failed", 9, NOT_IMPLEMENTED),
        ("b", "failed", 1, "The sign is wrong."),
        ("c", "failed", 9, NOT_IMPLEMENTED),
    )
    assert order(lost) == [("b", []), ("a c", [])]
    assert [entry.begun for entry in what_to_fix(lost)] == [True, False]


def test_a_stub_is_known_by_what_the_observer_says_of_it() -> None:
    answers = [{"error": {"kind": "todo"}, "seconds": 0.0}]
    room = Mock(ask=lambda frame, seconds: encode({"answers": answers, "ticket": decode(frame)["ticket"]}))
    call = Call("1/a", Path(__file__), "probe", (), 0, 1.0)
    with pytest.raises(NoObservation, match=f"^{re.escape(NOT_IMPLEMENTED)}$"):
        Observer(room, {}, {}, messages=False, budget=1.0).observe(call)


def test_an_id_is_named_only_as_a_whole() -> None:
    lost = result(
        ("1/shape", "failed", 1, None),
        ("1/shape-of-y", "failed", 1, None),
        ("1/z", "skipped", 1, "Needs 1/shape-of-y."),
    )
    assert order(lost) == [("1/shape-of-y", ["1/z"]), ("1/shape", [])]


def test_a_skipped_check_without_a_known_reason_stands_for_itself() -> None:
    assert order(result(("a", "skipped", 1, None), ("b", "skipped", 1, "No data."))) == [("a", []), ("b", [])]


def test_two_skipped_checks_that_name_each_other_both_stay() -> None:
    assert order(result(("a", "skipped", 1, "waits for b"), ("b", "skipped", 1, "waits for a"))) == [
        ("a", []),
        ("b", []),
    ]


@given(st.lists(st.tuples(st.sampled_from(["failed", "skipped"]), st.sets(st.integers(0, 7))), max_size=8))
def test_every_lost_check_is_shown_whatever_waits_for_what(entries: list[tuple[str, set[int]]]) -> None:
    lost = result(
        *((f"c{n}", status, 1.0, " ".join(f"c{m}" for m in sorted(named))) for n, (status, named) in enumerate(entries))
    )
    shown = [id_ for first, opens in order(lost) for id_ in (*first.split(), *opens)]
    assert set(shown) == {check.id for check in lost.checks}


def test_the_sample_class_loses_exactly_what_it_is_told() -> None:
    for given_ in sample_class()[0]:
        told = {id_ for first, opens in order(given_) for id_ in (*first.split(), *opens)}
        assert told == {check.id for check in given_.checks if not check.passed}
