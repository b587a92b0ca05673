"""A stand-in for an exercise is sent to a submission only after all checks of this exercise, hidden ones included."""

from __future__ import annotations

import ast
import re

import pytest

from autograder import assignment as assignments
from autograder.release.programs import reference_program, stub_program
from ebmcourse.checking.judge import Judge
from ebmcourse.checking.probes import stand_ins
from ebmcourse.checking.program import laid_out
from ebmcourse.checking.reference import LiveReference


def parts_of_functions(assignment: assignments.Assignment) -> dict[str, str]:
    """Function -> the exercise that asks for it, as the exception of its stub says."""
    texts = [text for name in assignment.files for text in stub_program(assignment, name).values()]
    trees = [ast.parse(text) for text in texts if not text.startswith("%")]  # a cell with magics is no Python
    functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    found = {
        node.name: re.search(r"NotImplementedError\(['\"]Exercise (\w[\w.]*)", ast.unparse(node)) for node in functions
    }
    return {name: match[1] for name, match in found.items() if match and not name.startswith("__")}


@pytest.mark.parametrize("name", assignments.names())
def test_stand_ins_come_after_the_checks_of_what_they_replace(name: str) -> None:
    assignment = assignments.load(name)
    parts = parts_of_functions(assignment)
    assert parts
    sent: set[str] = set()
    with laid_out(reference_program(assignment)) as folder:
        for request in Judge(assignment.checks, LiveReference("0", folder)).requests:
            for call in request.calls:
                sent |= stand_ins(call.file, call.probe)
            replaced = {parts[stand_in] for stand_in in sent if stand_in in parts}
            assert replaced.isdisjoint(call.part for call in request.calls), request.calls[0].file
