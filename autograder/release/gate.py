"""The release gate: a release contains no solution, no hidden check and no value of one, and its stubs are stubs."""

import io
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

from autograder.assignment import Assignment
from autograder.release.stubs import BEGIN_HIDDEN, BEGIN_SOLUTION, END_HIDDEN, END_SOLUTION
from ebmcourse.checking.judge import collect
from ebmcourse.checking.observation import decode
from ebmcourse.checking.public import RECORDING, PublicChecks

# A line with fewer tokens, such as `return loss` or `x, y = batch`, reveals nothing, nor do these.
TRIVIAL_TOKENS = 7
TRIVIAL_LINES = {"withtorch.no_grad():", "withtorch.enable_grad():"}
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
    return [
        *leaks(assignment, released),
        *hidden_checks(released),
        *hidden_values(released),
        *stub_complaints(released),
    ]


def leaks(assignment: Assignment, released: Path, others: Iterable[Assignment] = ()) -> list[str]:
    """Return a sentence for every line of a solution or hidden test that a file of the release contains.

    Lines that are also in the given text of the assignment, or of one of `others`, are not secret. Public checks make
    the lines of hidden tests known, but not those of a solution.
    """
    programs = [_sorted_lines(_programs(one)) for one in (assignment, *others)]
    checks = [_sorted_lines(one.checks.glob("*.py")) for one in (assignment, *others)]
    given = "\n".join(line for _, known in programs for line in known)  # a secret line may be a part of one of these
    public = "\n".join(line for _, known in checks for line in known)
    secrets = {line: about for line, about in programs[0][0].items() if line not in given}
    secrets |= {line: about for line, about in checks[0][0].items() if line not in given and line not in public}
    found = []
    for path in sorted(path for path in released.rglob("*") if path.is_file()):
        text = path.read_bytes().decode("utf-8", errors="replace")
        squeezed = _squeezed(text.replace("\\n", " ").replace('\\"', '"'))
        for line, (words, name) in secrets.items():
            if line in squeezed:
                found.append(f"{path.name} contains a line of the solution or a hidden test of {name}: {words}")
    return found


def _programs(assignment: Assignment) -> list[Path]:
    return [*assignment.scripts, *([assignment.notebook] if assignment.notebook else [])]


def _sorted_lines(files: Iterable[Path]) -> tuple[dict[str, tuple[str, str]], set[str]]:
    """The secret lines, without blanks, each with its text and its file, and the lines that are not secret."""
    secret: dict[str, tuple[str, str]] = {}
    known = set(TRIVIAL_LINES)
    for path in sorted(files):
        for tokens, is_secret in _lines(path.read_text("utf-8")):
            line = _squeezed("".join(tokens))
            if not is_secret:
                known.add(line)
            elif len(tokens) >= TRIVIAL_TOKENS:
                secret.setdefault(line, (" ".join(tokens), path.name))
    return secret, known


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
        for outcome in PublicChecks(released).outcomes()
        if not outcome.is_unwritten
    ]


def hidden_checks(released: Path) -> list[str]:
    """Return a sentence for every check in the release that is not public."""
    return [
        f"the check {check.id} is not public: put it between `{BEGIN_HIDDEN}` and `{END_HIDDEN}`, or make it public"
        for check in collect(released / "checks")
        if not check.public
    ]


def hidden_values(released: Path) -> list[str]:
    """Return a sentence for every value of the reference in the recording that no public check of the release needs."""
    public = {check.id for check in collect(released / "checks") if check.public}
    recorded = decode((released / "checks" / RECORDING).read_bytes())["observations"]
    return [
        f"{RECORDING} contains what the reference returns in {key}, which is not a public check"
        for key in recorded
        if key.partition("#")[0] not in public
    ]
