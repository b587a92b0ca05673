"""Forged replies survive where a check proves nothing, and nowhere else."""

from __future__ import annotations

from textwrap import dedent

import pytest

from autograder import assignment as assignments
from autograder.quality.forged import KINDS, measure_forged

WEAK = """
    @probe
    def described(student, x):
        doubled = student.tiny.double(x)
        return {"sum": doubled.sum(), "negative": [0.0], "ratio": {"all": doubled, "half": x.clone()}, "unread": 1.0}


    @exercise("1a", points=1, hint="Multiply by two.")
    def test_described(run, numbers):
        \"""`double` doubles whatever it says.\"""
        got, want = run(described, numbers)
        assert_close(got["sum"], want["sum"])
        assert all(number >= 0 for number in got["negative"])
        assert_close(got["ratio"]["all"], 2 * got["ratio"]["half"])
    """

EXPLAINED = """
    [[explained]]
    check = "1a/described"
    leaf = "#0.ratio"
    kind = "*"
    reason = "Only the ratio is asked for."
    """


def course(folder, checks="", forged=None):
    path = folder / "solutions" / "tiny"
    with open(path / "checks" / "test_1.py", "a", encoding="utf-8") as file:
        file.write(dedent(checks))
    if forged is not None:
        (path / "quality").mkdir(exist_ok=True)
        (path / "quality" / "forged.toml").write_text(dedent(forged), "utf-8")
    return assignments.load("tiny", folder)


@pytest.mark.slow
def test_no_forged_reply_to_a_check_of_numbers_survives(tiny_course):
    result = measure_forged(course(tiny_course))
    assert result.survivors == [] and result.complaints == []
    assert result.killed == result.total >= 2 * (len(KINDS) - 3)


def test_a_weak_check_is_found_with_the_values_that_it_accepts(tiny_course):
    result = measure_forged(course(tiny_course, WEAK))
    found = {(one.check, one.leaf, one.kind, one.what) for one in result.survivors}
    check = "1a/described"
    assert {kind for _, leaf, kind, _ in found if leaf == "#0.negative"} == {"empty", "ones"}
    assert {kind for _, leaf, kind, _ in found if leaf == "#0.ratio"} == {"zeros", "public", "large"}
    assert not any(leaf in ("#0.sum", "#0.ratio.all", "#0.ratio.half") for _, leaf, _, _ in found)
    assert ("all checks of test_1.described", "#0.unread", "anything", "passes") in found
    assert {name for name, leaf, _, _ in found if leaf != "#0.unread"} == {check}
    assert f"{check}: #0.ratio passes as zeros, public, large" in result.complaints


@pytest.mark.slow
def test_only_the_checks_that_are_asked_for_are_measured(tiny_course):
    assignment = course(tiny_course, WEAK, EXPLAINED)
    assert measure_forged(assignment, only="mutants/").total == 0
    double, plus = (measure_forged(assignment, only=name) for name in ("1a/double", "forged/1b"))
    assert double.total > 0 and double.complaints == plus.complaints == []
    assert {one.check for one in measure_forged(assignment, only="described").survivors} == {"1a/described"}


@pytest.mark.slow
def test_the_measure_says_the_same_again(tiny_course):
    assignment = course(tiny_course, WEAK)
    first, again = measure_forged(assignment), measure_forged(assignment)
    assert (first.total, first.survivors) == (again.total, again.survivors)


def test_a_judgement_that_breaks_is_a_survivor(tiny_course):
    broken = """
        @exercise("1b", points=1, hint="Add.")
        def test_that_breaks(run, numbers):
            \"""Adds.\"""
            got, want = run(added, numbers)
            assert 1 / (got.abs().sum().item() > 0)
            assert_close(got, want)
        """
    result = measure_forged(course(tiny_course, broken))
    assert result.complaints == ["1b/that-breaks: #0 ends in an internal error as zeros"]


SEVERAL = """
    from ebmcourse.checking import assert_either_way, ways


    @probe
    def either(student, x):
        return ways(whole=lambda: student.tiny.double(x), isolated=lambda: {"x": student.tiny.double(x)})


    @exercise("1a", points=1, hint="Multiply by two.")
    def test_either(run, numbers):
        \"""`double` doubles in some way.\"""
        got, want = run(either, numbers)
        assert_either_way(got, want, JUDGE)
    """


@pytest.mark.parametrize(
    ("judge", "leaves"),
    [
        ("assert_close", set()),
        ("lambda got, want: None", {"#0.whole", "#0.isolated"}),
        ("lambda got, want: assert_close(got, want) if isinstance(want, dict) else None", {"#0.whole"}),
    ],
)
def test_several_ways_are_forged_one_at_a_time(tiny_course, judge, leaves):
    result = measure_forged(course(tiny_course, SEVERAL.replace("JUDGE", judge)))
    assert {one.leaf for one in result.survivors if one.kind == "noise"} == leaves


@pytest.mark.slow
def test_an_explanation_explains_what_it_names_and_must_be_of_use(tiny_course):
    plain = measure_forged(course(tiny_course, WEAK))
    explained = measure_forged(course(tiny_course, "", EXPLAINED))
    assert explained.explained == 3 and explained.total == plain.total
    assert len(explained.survivors) == len(plain.survivors) - 3 and explained.killed == plain.killed
    useless = measure_forged(course(tiny_course, "", EXPLAINED + EXPLAINED.replace("#0.ratio", "#0.sum")))
    assert useless.complaints[-1] == "forged.toml explains what does not happen: 1a/described, #0.sum, *"


@pytest.mark.parametrize("change", [('reason = "Only', 'reasons = "Only'), ("Only the ratio is asked for.", " ")])
def test_an_explanation_without_a_reason_is_refused(tiny_course, change):
    with pytest.raises(ValueError, match="a check, a leaf, a kind and a reason"):
        measure_forged(course(tiny_course, WEAK, EXPLAINED.replace(*change)))
