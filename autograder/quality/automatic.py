"""Automatic mutants: every small change that the mutation library mutmut makes to the solutions of the reference.

What survives and is no mistake must be explained in ``quality/equivalent.toml`` of the assignment::

    [[equivalent]]
    part = "3.4a"
    before = "total = 0.0"                    # the line, without its indentation
    after = "total = 1.0"
    reason = "It is assigned again before it is read."
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from autograder import Failure
from autograder.assignment import Assignment
from autograder.quality.cases import Case, explanations
from autograder.release.programs import solved
from autograder.release.stubs import BEGIN_SOLUTION, END_SOLUTION

_KEYS = {"part": "a part", "before": "the line before", "after": "the line after"}

Change = tuple[str, str, str]  # exercise, line before, line after


def automatic(assignment: Assignment) -> list[Case]:
    """The mutants of all solutions, as cases. Raises `Failure` where the mutation library is not installed."""
    reasons = _equivalent(assignment)
    cases, seen = [], Counter[str]()
    for source, edit in _sources(assignment):
        for change, mutated in _mutants(source):
            part, before, after = change
            seen[part] += 1
            text = {"source" if "cell" in edit else "text": mutated}
            name = f"{part.replace('.', '-')}-{seen[part]:03d}"
            reason = reasons.pop(change, "")
            cases.append(
                Case("automatic", name, f"{before} → {after}", "reference", (edit | text,), part, equivalent=reason)
            )
    if reasons:
        raise ValueError(f"{assignment.quality / 'equivalent.toml'} explains what is no mutant: {next(iter(reasons))}.")
    return cases


def _equivalent(assignment: Assignment) -> dict[Change, str]:
    entries = explanations(assignment.quality / "equivalent.toml", "equivalent", _KEYS)
    return {(entry["part"], entry["before"], entry["after"]): entry["reason"] for entry in entries}


def _sources(assignment: Assignment) -> Iterator[tuple[str, dict[str, Any]]]:
    """The texts with solutions, each with the edit that replaces it when its new text is added."""
    for script in assignment.scripts:
        yield script.read_text("utf-8"), {"file": script.name}
    if assignment.hands_in_notebook:
        for cell in json.loads(solved(assignment))["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code" and BEGIN_SOLUTION in source:
                yield source, {"file": f"{assignment.name}.ipynb", "cell": cell["id"]}


def _mutants(source: str) -> Iterator[tuple[Change, str]]:
    """Every mutant of the code in the solutions of `source`: what is changed, and the whole text.

    Texts are left as they are where they are read by people only: in exceptions and in docstrings.
    """
    try:
        import libcst
        from libcst import matchers
        from libcst.metadata import MetadataWrapper, PositionProvider
        from mutmut.mutation.mutators import mutation_operators
    except ImportError:
        raise Failure("Automatic mutants need the package mutmut: run `pip install mutmut`.") from None

    exercises = _exercises(source)
    wrapper = MetadataWrapper(libcst.parse_module(source))
    messages = {
        id(text)
        for statement in matchers.findall(wrapper.module, matchers.Raise())
        for text in matchers.findall(statement, matchers.SimpleString())
    }
    made = {source}
    for node, place in wrapper.resolve(PositionProvider).items():
        part = exercises.get(place.start.line)
        if part is None or id(node) in messages:
            continue
        for kind, operator in mutation_operators:
            for other in operator(node) if isinstance(node, kind) else ():
                mutated = libcst.ensure_type(wrapper.module.deep_replace(node, other), libcst.Module).code
                if mutated not in made:
                    made.add(mutated)
                    yield (part, *_changed_lines(source, mutated)), mutated


def _exercises(source: str) -> dict[int, str]:
    """The exercise of every line between markers of a solution."""
    exercises, part = {}, ""
    for number, line in enumerate(source.splitlines(), start=1):
        if found := re.match(rf"\s*{BEGIN_SOLUTION} (\S+)", line):
            part = found[1]
        elif line.strip() == END_SOLUTION:
            part = ""
        elif part:
            exercises[number] = part
    return exercises


def _changed_lines(source: str, mutated: str) -> tuple[str, str]:
    """The first line that is different, before and after."""
    for before, after in zip_longest(source.splitlines(), mutated.splitlines(), fillvalue=""):
        if before != after:
            return before.strip(), after.strip()
    return "", ""
