"""Automatic mutants: every small change that the mutation library mutmut makes to the solutions of the reference.

What survives and is no mistake must be explained in ``quality/equivalent.toml`` of the assignment::

    [[equivalent]]
    part = "3.4a"
    before = "total = 0.0"                    # the line, without its indentation
    after = "total = 1.0"
    reason = "It is assigned again before it is read."
"""

from collections import Counter
from collections.abc import Iterator
from itertools import zip_longest

from autograder import Failure
from autograder.assignment import Assignment
from autograder.quality.cases import Case, explanations
from autograder.quality.solutions import exercises, sources

_KEYS = {"part": "a part", "before": "the line before", "after": "the line after"}

Change = tuple[str, str, str]  # exercise, line before, line after


def automatic(assignment: Assignment) -> list[Case]:
    """The mutants of all solutions, as cases. Raises `Failure` where the mutation library is not installed."""
    reasons = _equivalent(assignment)
    cases, seen = [], Counter[str]()
    for source, edit in sources(assignment):
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

    parts = exercises(source)
    wrapper = MetadataWrapper(libcst.parse_module(source))
    messages = {
        id(text)
        for statement in matchers.findall(wrapper.module, matchers.Raise())
        for text in matchers.findall(statement, matchers.SimpleString())
    }
    made = {source}
    for node, place in wrapper.resolve(PositionProvider).items():
        part = parts.get(place.start.line)
        if part is None or id(node) in messages:
            continue
        for kind, operator in mutation_operators:
            for other in operator(node) if isinstance(node, kind) else ():
                mutated = libcst.ensure_type(wrapper.module.deep_replace(node, other), libcst.Module).code
                if mutated not in made:
                    made.add(mutated)
                    yield (part, *_changed_lines(source, mutated)), mutated


def _changed_lines(source: str, mutated: str) -> tuple[str, str]:
    """The first line that is different, before and after."""
    for before, after in zip_longest(source.splitlines(), mutated.splitlines(), fillvalue=""):
        if before != after:
            return before.strip(), after.strip()
    return "", ""
