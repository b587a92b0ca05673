"""The release gate: proves that a release leaks nothing, and that its stubs are stubs."""

from __future__ import annotations

import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

from autograder.assignment import Assignment
from autograder.judge import Judge
from autograder.release import RECORDING
from autograder.stubs import BEGIN_HIDDEN, BEGIN_SOLUTION, END_HIDDEN, END_SOLUTION
from ebmcourse.checking.answers import Recorded
from ebmcourse.checking.local import LocalRoom
from ebmcourse.checking.observer import Observer
from ebmcourse.checking.program import laid_out, program_in

# A line with fewer tokens, such as `return loss` or `x, y = batch`, tells nothing.
TRIVIAL_TOKENS = 7
_SILENT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def leaks(assignment: Assignment, released: Path) -> list[str]:
    """Sentences on every line of a solution or hidden test that stands in a file of the release."""
    secrets: dict[str, tuple[str, str]] = {}  # squeezed line -> its words, and the file that it is from
    open_lines: set[str] = set()
    sources = [*assignment.scripts, *([assignment.notebook] if assignment.notebook else [])]
    for path in [*sources, *sorted(assignment.checks.glob("*.py"))]:
        for tokens, secret in _lines(path.read_text("utf-8")):
            if not secret:
                open_lines.add(_squeezed("".join(tokens)))
            elif len(tokens) >= TRIVIAL_TOKENS:
                secrets.setdefault(_squeezed("".join(tokens)), (" ".join(tokens), path.name))
    open_text = "\n".join(open_lines)  # a hidden line may also be part of an open one
    secrets = {line: about for line, about in secrets.items() if line not in open_text}
    found = []
    for path in sorted(path for path in released.rglob("*") if path.is_file()):
        text = path.read_bytes().decode("utf-8", errors="replace")
        squeezed = _squeezed(text.replace("\\n", " ").replace('\\"', '"'))
        for line, (words, name) in secrets.items():
            if line in squeezed:
                found.append(f"{path.name} holds a line of the solution or a hidden test of {name}: {words}")
    return found


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _lines(source: str) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Every logical line as its tokens, and whether it lies in a solution or a hidden test."""
    secret = False
    line: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if token.string.startswith((BEGIN_SOLUTION, BEGIN_HIDDEN)):
                secret = True
            elif token.string.startswith((END_SOLUTION, END_HIDDEN)):
                secret = False
        elif token.type == tokenize.NEWLINE:
            yield tuple(line), secret
            line = []
        elif token.type not in _SILENT:
            line.append(token.string)


def stub_complaints(assignment: Assignment, released: Path) -> list[str]:
    """Sentences on public checks that do anything else on the stub than say “not implemented yet”."""
    files, problems = program_in(released, assignment.files)
    judge = Judge(released / "checks", Recorded(released / "checks" / RECORDING))
    with laid_out(files) as folder:
        room = LocalRoom(folder, assignment.modules)
        try:
            outcomes = judge.outcomes(Observer(room, files, problems, messages=True, budget=600))
        finally:
            room.close()
    return [
        f"on the stub, {outcome.id} says: {outcome.status}, {outcome.diagnosis}"
        for outcome in outcomes
        if outcome.diagnosis != "Not implemented yet."
    ]
