"""quality/contract.toml says of every function what the checks vary."""

from __future__ import annotations

import re

import pytest

from autograder import assignment as assignments
from autograder.quality.contract import DIMENSIONS, contract, table
from autograder.quality.solutions import exercises, functions, sources
from autograder.release.stubs import BEGIN_SOLUTION


@pytest.mark.parametrize("name", assignments.names())
def test_every_function_of_every_assignment_has_its_dimensions(name):
    assignment = assignments.load(name)
    assert contract(assignment).keys() == functions(assignment).keys()
    rows = [line for line in table(assignment).splitlines() if line.startswith("| `")]
    assert len(rows) == len(functions(assignment))


@pytest.mark.parametrize("name", assignments.names())
def test_every_exercise_with_a_solution_has_a_function(name):
    assignment = assignments.load(name)
    parts = {part for source, _ in sources(assignment) for part in exercises(source).values()}
    assert parts == set(functions(assignment).values())
    assert parts == set(re.findall(rf"{BEGIN_SOLUTION} (\S+)", "\n".join(source for source, _ in sources(assignment))))


def written(tiny_course, text):
    (tiny_course / "solutions" / "tiny" / "quality").mkdir(exist_ok=True)
    (tiny_course / "solutions" / "tiny" / "quality" / "contract.toml").write_text(text)
    return contract(assignments.load("tiny", tiny_course))


def all_dimensions(reason):
    return "\n".join(f'{dimension} = "{reason}"' for dimension in DIMENSIONS)


def test_a_forgotten_function_a_forgotten_dimension_and_an_unknown_case_are_refused(tiny_course):
    reason = all_dimensions("It is open to nothing.")
    assert contract(assignments.load("tiny", tiny_course)) == {}
    assert written(tiny_course, f"[double]\n{reason}\n[plus]\n{reason}").keys() == {"double", "plus"}
    with pytest.raises(ValueError, match="plus"):
        written(tiny_course, f"[double]\n{reason}")
    with pytest.raises(ValueError, match="double needs exactly"):
        written(tiny_course, f'[double]\nsizes = "One."\n[plus]\n{reason}')
    with pytest.raises(ValueError, match="neither a case nor a reason"):
        written(tiny_course, f"[double]\n{all_dimensions('mutants/unknown')}\n[plus]\n{reason}")
    with pytest.raises(ValueError, match="neither a case nor a reason"):
        written(tiny_course, f"[double]\n{all_dimensions('no sentence')}\n[plus]\n{reason}")
