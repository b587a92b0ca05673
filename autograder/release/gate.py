"""The release gate: tests that a release contains no solutions or hidden checks, and that its stubs are stubs."""

from __future__ import annotations

import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

from autograder.assignment import Assignment
from autograder.release.stubs import BEGIN_HIDDEN, BEGIN_SOLUTION, END_HIDDEN, END_SOLUTION
from ebmcourse.checking.judge import collect
from ebmcourse.checking.public import run_public_checks

# A line with fewer tokens, such as `return loss` or `x, y = batch`, reveals nothing.
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


def complaints(assignment: Assignment, released: Path) -> list[str]:
    """Return the reasons, as sentences, why the release in the folder `released` must not be published."""
    return [*leaks(assignment, released), *hidden_checks(released), *stub_complaints(released)]


def leaks(assignment: Assignment, released: Path) -> list[str]:
    """Return a sentence for every line of a solution or hidden test that a file of the release contains."""
    secrets: dict[str, tuple[str, str]] = {}  # line without blanks -> the line with blanks, and its file
    open_lines: set[str] = set()
    sources = [*assignment.scripts, *([assignment.notebook] if assignment.notebook else [])]
    for path in [*sources, *sorted(assignment.checks.glob("*.py"))]:
        for tokens, secret in _lines(path.read_text("utf-8")):
            if not secret:
                open_lines.add(_squeezed("".join(tokens)))
            elif len(tokens) >= TRIVIAL_TOKENS:
                secrets.setdefault(_squeezed("".join(tokens)), (" ".join(tokens), path.name))
    open_text = "\n".join(open_lines)  # a secret line may also be part of a line that is not secret
    secrets = {line: about for line, about in secrets.items() if line not in open_text}
    found = []
    for path in sorted(path for path in released.rglob("*") if path.is_file()):
        text = path.read_bytes().decode("utf-8", errors="replace")
        squeezed = _squeezed(text.replace("\\n", " ").replace('\\"', '"'))
        for line, (words, name) in secrets.items():
            if line in squeezed:
                found.append(f"{path.name} contains a line of the solution or a hidden test of {name}: {words}")
    return found


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _lines(source: str) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Yield the tokens of every logical line, and whether it is in a solution or a hidden test."""
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


def stub_complaints(released: Path) -> list[str]:
    """Return a sentence for every public check whose diagnosis of the stub is not “not implemented yet”."""
    return [
        f"on the stub, {outcome.id} says: {outcome.status}, {outcome.diagnosis}"
        for outcome in run_public_checks(released)
        if not outcome.is_unwritten
    ]


def hidden_checks(released: Path) -> list[str]:
    """Return a sentence for every check in the release that is not public."""
    return [
        f"the check {check.id} is not public: put it between `{BEGIN_HIDDEN}` and `{END_HIDDEN}`, or make it public"
        for check in collect(released / "checks")
        if not check.public
    ]
