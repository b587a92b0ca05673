"""The output of `ebmcourse check`: a line per exercise, and the first failure in detail."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from ebmcourse.checking.outcome import Outcome

_STYLES = {"passed": "green", "skipped": "yellow"}


def show(out: Console, parts: dict[str, str], outcomes: list[Outcome], *, everything: bool) -> None:
    """Show the outcomes; `parts` maps exercises to titles. If `everything` is true, show every check in detail."""
    by_part: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_part.setdefault(outcome.part, []).append(outcome)
    first = next((part for part, found in by_part.items() if not all(o.passed for o in found)), None)
    for part, found in by_part.items():
        _part(out, part, parts.get(part, ""), found)
        if everything or part == first:
            _checks(out, found, everything=everything)
    points, most = sum(o.points for o in outcomes), sum(o.max_points for o in outcomes)
    out.print(f"\n[bold]{points:g} of {most:g} points[/] of the public checks; grading adds hidden ones.")
    if first and not everything:
        out.print(f"Continue with {first}: `ebmcourse check --part {first}` runs only its checks.")


def _part(out: Console, part: str, title: str, outcomes: list[Outcome]) -> None:
    """Show one line: ✓ if the exercise is done, ✗ if it is wrong, · if it is not started."""
    points, most = sum(o.points for o in outcomes), sum(o.max_points for o in outcomes)
    left = sum(not outcome.passed for outcome in outcomes)
    if not left:
        mark, style, state = "✓", "green", ""
    elif all(outcome.is_unwritten for outcome in outcomes):
        mark, style, state = "·", "dim", "  not implemented yet"
    else:
        mark, style = "✗", "red"
        state = "  failed" if len(outcomes) == 1 else f"  {left} of {len(outcomes)} checks failed"
    points_text = (f"{points:g}/{most:g}", "dim")
    out.print(Text.assemble((f"{mark} ", style), (part, "bold"), f"  {title}  ", points_text, (state, style)))


def _checks(out: Console, outcomes: list[Outcome], *, everything: bool) -> None:
    told = False
    for outcome in outcomes:
        style = _STYLES.get(outcome.status, "red")
        points = f"{outcome.points:g}/{outcome.max_points:g}"
        _indented(out, 4, Text.assemble((f"{outcome.sign} ", style), outcome.title, (f"  {points}", "dim")))
        if not outcome.passed and (everything or not told):
            told = True
            _indented(out, 6, Text(outcome.explanation, style))
            if outcome.advice:
                _indented(out, 6, Text.assemble(("Hint: ", "cyan"), outcome.advice))


def _indented(out: Console, spaces: int, text: Text) -> None:
    """Print text that is also indented where it is wrapped."""
    out.print(Padding(text, (0, 0, 0, spaces), expand=False))
