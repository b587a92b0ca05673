"""Submissions with functions of the checks are flagged; right solutions by others are not."""

from __future__ import annotations

import ast
import json

import pytest

from autograder import assignment as assignments
from autograder.grade import submissions
from autograder.quality.cases import Case, load
from autograder.release.programs import released


def copied_flags(assignment, folder):
    return [flag for flag in submissions.read(folder, "s001", assignment).flags if "lines of the checks" in flag]


WITH_STAND_INS = [
    path.parents[1].name for path in sorted((assignments.COURSE / "solutions").glob("*/checks/stand_ins.py"))
]


@pytest.mark.parametrize("name", WITH_STAND_INS)
@pytest.mark.parametrize("formatted", [False, True])
def test_a_copied_file_of_the_checks_is_flagged(name, formatted, tmp_path):
    assignment = assignments.load(name)
    source = (assignment.checks / "stand_ins.py").read_text("utf-8")
    source = ast.unparse(ast.parse(source)) if formatted else source
    file = assignment.files[0]
    if file.endswith(".ipynb"):
        notebook = json.loads(released(assignment))
        cell = next(cell for cell in notebook["cells"] if cell["metadata"].get("nbgrader", {}).get("solution"))
        cell["source"] = source
        source = json.dumps(notebook)
    (tmp_path / file).write_text(source)
    (flag,) = copied_flags(assignment, tmp_path)
    assert flag.startswith(f"{file} contains ")


@pytest.mark.slow
@pytest.mark.parametrize("name", assignments.names())
def test_right_solutions_by_others_are_not(name, tmp_path):
    assignment = assignments.load(name)
    cases = [*load(assignment, "variants"), *load(assignment, "blind/variants")]
    cases.append(Case("variants", "reference", "", "reference", ()))
    for case in cases:
        case.write(assignment, tmp_path / case.kind / case.name)
        assert copied_flags(assignment, tmp_path / case.kind / case.name) == [], case.name
