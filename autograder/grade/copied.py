"""Finds lines of the checks in what was handed in.

The released checks contain formulas and stand-ins for functions of other exercises, which a student can copy.
"""

import ast
import re
from functools import lru_cache

from autograder.assignment import Assignment
from autograder.release.programs import reference_program

SHORTEST = 25  # characters of a line that counts; shorter ones are alike in all programs
FEWEST = 8  # such lines; right solutions by others have up to four, a few copied functions have more than twenty

_RUNS_TEXT = re.compile(r"(?<![.\w])(exec|eval|compile|__import__)\(|\bimport_module\(")

# A text of any kind, or a comment. An open end closes a text too, or the search would begin again at every quote.
_TEXT_OR_COMMENT = re.compile(
    r"""("{3}[\s\S]*?(?:"{3}|\Z)|'{3}[\s\S]*?(?:'{3}|\Z)|"(?:\\[\s\S]|[^"\\\n])*+"?|'(?:\\[\s\S]|[^'\\\n])*+'?)|\#[^\n]*"""
)


@lru_cache(maxsize=1024)  # the same files are asked about again and again
def lines_of_code(source: str) -> frozenset[str]:
    """The different lines of a program without comments, and without texts unless it may run a text as a program."""
    code = _TEXT_OR_COMMENT.sub(lambda found: "''" if found[1] else "", source)
    if _RUNS_TEXT.search(code):
        code = _TEXT_OR_COMMENT.sub(lambda found: found[1] or "", source)
    return frozenset(map(str.strip, code.splitlines()))


def copied(name: str, own_lines: frozenset[str], assignment: Assignment) -> list[str]:
    """A flag for a file with lines of the checks, of which `own_lines` are those that are not in the release."""
    checks = (path.read_text("utf-8") for path in sorted(assignment.checks.glob("*.py")))
    reference = reference_program(assignment).values()
    found = sorted(own_lines & _only_in(tuple(checks), tuple(reference)), key=lambda line: (-len(line), line))
    if len(found) < FEWEST:
        return []
    return [f"{name} contains {len(found)} lines of the checks, such as `{found[0][:60]}`"]


@lru_cache(maxsize=8)
def _only_in(checks: tuple[str, ...], reference: tuple[str, ...]) -> frozenset[str]:
    """The lines of the checks, also as a formatter writes them, without those that the reference has, too."""
    formatted = (ast.unparse(ast.parse(text)) for text in checks)
    lines = frozenset[str]().union(*map(lines_of_code, (*checks, *formatted)))
    others = frozenset[str]().union(*map(lines_of_code, reference))
    return frozenset(line for line in lines - others if len(line) >= SHORTEST)
