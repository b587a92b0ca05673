"""The grader graded: every case of every assignment is graded as it must be."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import get_args

import pytest
from rich.console import Console

from autograder import assignment as assignments
from autograder.quality.cases import Kind, lacking, load
from autograder.quality.forged import Forged, Survivor
from autograder.quality.measure import CONTROL, STUB, complaint, measure
from autograder.quality.table import report
from autograder.release.new import create
from autograder.results import Result
from ebmcourse.checking.outcome import Outcome

NAMES = assignments.names()


def check(part: str, points: float, diagnosis: str | None = None) -> Outcome:
    status = "passed" if points else "failed"
    return Outcome(f"{part}/x", part, "title", status, points, 1.0, True, "hint", diagnosis)


def result(*checks: Outcome, flags: tuple[str, ...] = ()) -> Result:
    score = sum(item.points for item in checks)
    return Result("a", "s", score, float(len(checks)), "0", "0", 0, list(flags), list(checks))


def mutant(**about):
    about = {"part": "1a", "fails": ("1a/x",), "diagnosis": "sign"} | about
    return type(CONTROL)("mutants", "m", "title", "reference", (), **about)


def test_complaints_are_made_where_they_must_be():
    killed = result(check("1a", 0, "The sign is wrong."), check("1b", 1))
    assert complaint(mutant(), killed, 0) is None
    assert "survives" in complaint(mutant(), result(check("1a", 1), check("1b", 1)), 0)
    assert "outside of 1a" in complaint(mutant(), result(check("1a", 0, "sign"), check("1b", 0)), 0)
    assert "diagnosed otherwise" in complaint(mutant(diagnosis="transposed"), killed, 0)
    assert "passes 1a/y" in complaint(mutant(fails=("1a/y",)), killed, 0)
    assert "loses 1a/x" in complaint(CONTROL, killed, 0)
    assert "gains" in complaint(STUB, result(check("1a", 1)), 0)
    assert complaint(STUB, result(check("1a", 0)), 0) is None


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        ({"file": "tiny.py", "find": "2.5", "replace": "3"}, "tiny.py cannot be edited: '2.5' occurs 0 times."),
        ({"file": "nosuch.py", "append": "x = 1"}, "nosuch.py cannot be edited: [Errno 2] No such file"),
    ],
)
def test_an_edit_that_does_not_fit_names_assignment_case_and_file(tiny_course, tmp_path, edit, told):
    tiny = assignments.load("tiny", tiny_course)
    with pytest.raises(ValueError) as stopped:
        replace(mutant(), edits=(edit,)).write(tiny, tmp_path / "made")
    assert str(stopped.value).startswith(f"tiny, mutants/m: {told}")


@pytest.mark.slow
@pytest.mark.usefixtures("needs_sandbox")
@pytest.mark.parametrize("name", NAMES)
def test_every_case_is_graded_as_it_must_be(name):
    # Endless loops use all the time; other programs take a few seconds. What an attack cannot do in 20, it cannot do.
    verdicts = [
        verdict
        for seconds, kinds in ((20, ("attacks",)), (60, ("mutants", "variants")))
        for verdict in measure(replace(assignments.load(name), seconds=seconds), kinds=kinds, in_pools=True)
    ]
    wrong = [f"{v.case.kind}/{v.case.name}: {v.complaint}" for v in verdicts if v.complaint]
    assert not wrong, "\n".join(wrong)


def test_the_report_says_what_survives():
    survivor = Survivor("1a/x", "#0.loss", "zeros")
    console = Console(width=100, file=io.StringIO())
    console.print(report([], Forged(9, 2, [survivor], ["1b/x, #0, *"])))
    text = console.file.getvalue()
    assert "1a/x: #0.loss passes as zeros" in text and "explains what does not happen: 1b/x, #0, *" in text
    assert "forged replies: killed 6 of 9, explained 2" in text


@pytest.mark.parametrize("name", NAMES)
def test_there_are_enough_cases(name):
    """Or the failure says what to add: it is the first that the author of a new assignment sees."""
    assignment = assignments.load(name)
    missing = lacking(assignment)
    assert not missing, f"Add to {assignment.quality}: {missing}. See “What an assignment needs” in docs/checks.md."


def test_what_a_new_assignment_lacks_is_said(tmp_path):
    create("fresh", tmp_path)
    fresh = assignments.load("fresh", tmp_path)
    assert lacking(fresh) == "18 mutants, 9 variants, 9 submissions of the sample class"
    for kind, count in (("mutants", 18), ("variants", 9), ("class", 9)):
        for number in range(count):
            (fresh.quality / kind / f"more-{number}.toml").write_text('title = "Another"\n')
    assert lacking(fresh) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_case_can_be_written(name, tmp_path):
    assignment = assignments.load(name)
    for kind in get_args(Kind):
        for case in load(assignment, kind):
            case.write(assignment, tmp_path / kind / case.name)
