"""The texts of an assignment that contain solutions, and which lines and functions belong to which exercise."""

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

from autograder.assignment import Assignment
from autograder.release.programs import solved
from autograder.release.stubs import BEGIN_SOLUTION, END_SOLUTION


def sources(assignment: Assignment) -> Iterator[tuple[str, dict[str, Any]]]:
    """The texts with solutions, each with the edit that replaces it when its new text is added."""
    for script in assignment.scripts:
        yield script.read_text("utf-8"), {"file": script.name}
    if assignment.hands_in_notebook:
        for cell in json.loads(solved(assignment))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and BEGIN_SOLUTION in source:
                yield source, {"file": f"{assignment.name}.ipynb", "cell": cell["id"]}


def exercises(source: str) -> dict[int, str]:
    """The exercise of every line between markers of a solution."""
    numbers, part = {}, ""
    for number, line in enumerate(source.splitlines(), start=1):
        if found := re.match(rf"\s*{BEGIN_SOLUTION} (\S+)", line):
            part = found[1]
        elif line.strip() == END_SOLUTION:
            part = ""
        elif part:
            numbers[number] = part
    return numbers


def functions(assignment: Assignment) -> dict[str, str]:
    """The exercise of every function and method (`Class.method`) that students write or complete."""
    found: dict[str, str] = {}
    for source, _ in sources(assignment):
        numbers = exercises(source)
        for name, node in _definitions(ast.parse(source).body):
            for line in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                if line in numbers:
                    found.setdefault(name, numbers[line])
    return found


def _definitions(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef]]:
    for statement in body:
        if isinstance(statement, ast.FunctionDef):
            yield prefix + statement.name, statement
        elif isinstance(statement, ast.ClassDef):
            yield from _definitions(statement.body, f"{statement.name}.")
