"""Automatic mutants: small changes of the solutions, and of nothing else."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from autograder import assignment as assignments
from autograder.quality.automatic import automatic
from autograder.quality.measure import complaint
from autograder.results import Result
from ebmcourse.checking.outcome import Outcome


def equivalent(course: Path, name: str, **about: str) -> None:
    lines = [f"{key} = {value!r}" for key, value in about.items()]
    folder = course / "solutions" / name / "quality"
    folder.mkdir(exist_ok=True)
    (folder / "equivalent.toml").write_text("\n".join(["[[equivalent]]", *lines]), "utf-8")


def test_every_mutant_is_another_program_with_the_same_given_code(tiny_course: Path, tmp_path: Path) -> None:
    assignment = assignments.load("tiny", tiny_course)
    reference = (assignment.folder / "tiny.py").read_text("utf-8")
    programs = []
    for case in automatic(assignment):
        case.write(assignment, tmp_path / case.name)
        programs.append((tmp_path / case.name / "tiny.py").read_text("utf-8"))
        ast.parse(programs[-1])
        changed = [line for line in programs[-1].splitlines() if line not in reference.splitlines()]
        assert len(changed) == 1 and changed[0].strip() == case.title.split(" → ")[1]
    assert len(programs) == len({*programs, reference}) - 1 >= 4
    assert any("secret_factor / x" in program for program in programs)


def test_the_solutions_of_a_notebook_are_changed_too(note_course: Path, tmp_path: Path) -> None:
    assignment = assignments.load("note", note_course)
    cases = automatic(assignment)
    assert {case.part for case in cases} == {"1a", "1b"}
    cases[0].write(assignment, tmp_path / "s001")
    assert cases[0].title.split(" → ")[1] in (tmp_path / "s001" / "note.ipynb").read_text("utf-8")


def test_what_survives_must_be_explained(tiny_course: Path) -> None:
    assignment = assignments.load("tiny", tiny_course)
    first = automatic(assignment)[0]
    before, after = first.title.split(" → ")

    def graded(points: float) -> Result:
        outcome = Outcome("1a/x", "1a", "title", "passed" if points else "failed", points, 1.0, True, "hint", None)
        return Result("a", "s", points, 1.0, "0", "0", 0, [], [outcome])

    assert complaint(first, graded(0.0), 0) is None
    assert complaint(first, graded(1.0), 0) == "survives"
    equivalent(tiny_course, "tiny", part=first.part, before=before, after=after, reason="It is the same.")
    explained = automatic(assignment)[0]
    assert complaint(explained, graded(1.0), 0) is None
    assert "calls it equivalent" in str(complaint(explained, graded(0.0), 0))


def test_an_explanation_of_what_is_no_mutant_is_an_error(tiny_course: Path) -> None:
    equivalent(tiny_course, "tiny", part="1a", before="x", after="y", reason="No reason.")
    with pytest.raises(ValueError, match="explains what is no mutant"):
        automatic(assignments.load("tiny", tiny_course))
