"""The output of `ebmcourse check`: a line per exercise, and the first failure in detail."""

from collections import Counter

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from ebmcourse.checking.outcome import Outcome

_STYLES = {"passed": "green", "unwritten": "dim", "skipped": "yellow"}


def show(
    out: Console,
    parts: dict[str, str],
    outcomes: list[Outcome],
    *,
    everything: bool,
    command: str = "ebmcourse check",
    where: str = "your files",
) -> None:
    """Show a line for each exercise that is written, the first failure in detail, and one line for the other exercises.

    `parts` maps exercises to titles. If `everything` is true, show every check of what is written, or of
    the only exercise, in detail. `command` is what the student typed, without options; `where` is what they write in.
    """
    by_part: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_part.setdefault(outcome.part, []).append(outcome)
    unwritten = [part for part, found in by_part.items() if _is_unwritten(found)]
    written = [part for part in by_part if part not in unwritten]
    first = next((part for part in written if not all(o.passed for o in by_part[part])), None)
    for part in by_part if everything else written:
        _part(out, part, parts.get(part, ""), by_part[part])
        if (everything and (part in written or len(by_part) == 1)) or part == first:
            _checks(out, by_part[part], everything=everything)
    if unwritten and not everything:
        out.print(Text.assemble(("· ", "dim"), "Not implemented yet: ", (", ".join(unwritten), "bold")))
    points, most = sum(o.points for o in outcomes), sum(o.max_points for o in outcomes)
    out.print(f"\n[bold]{points:g} of {most:g} points[/] of the public checks; grading adds hidden ones.")
    if first and not everything:
        out.print(
            f"Continue with {first}: `{command} --part {first}` runs only its checks.", markup=False, soft_wrap=True
        )
    elif unwritten and not everything:
        title = parts.get(unwritten[0], "")
        out.print(
            f"Next is {unwritten[0]}, {title}: search {where} for `TODO ({unwritten[0]})`.",
            markup=False,
            soft_wrap=True,
        )


def _is_unwritten(outcomes: list[Outcome]) -> bool:
    """Whether an exercise is still the stub; checks that wait for another one do not matter."""
    run = [outcome for outcome in outcomes if outcome.status != "skipped"]
    return bool(run) and all(outcome.is_unwritten for outcome in run)


def _part(out: Console, part: str, title: str, outcomes: list[Outcome]) -> None:
    """Show one line: ✓ if the exercise is done, ✗ if it is wrong, · if it is not started."""
    points, most = sum(o.points for o in outcomes), sum(o.max_points for o in outcomes)
    words = Counter(outcome.word for outcome in outcomes)
    if all(outcome.passed for outcome in outcomes):
        mark, style, state = "✓", "green", ""
    elif _is_unwritten(outcomes):
        stub = next(outcome for outcome in outcomes if outcome.is_unwritten)
        mark, style, state = stub.sign, "dim", f"  {stub.word}"
    else:
        mark, style = "✗", "red"
        counts = [f"{count} {word}" for word, count in words.items()]
        state = "  " + (outcomes[0].word if len(outcomes) == 1 else ", ".join(counts))
    points_text = (f"{points:g}/{most:g}", "dim")
    out.print(Text.assemble((f"{mark} ", style), (part, "bold"), f"  {title}  ", points_text, (state, style)))


def _checks(out: Console, outcomes: list[Outcome], *, everything: bool) -> None:
    """Show the checks that did not pass, and explain one of them; with `everything`, show and explain all."""
    failed = [outcome for outcome in outcomes if not outcome.passed]
    # What is written tells more than what is not, and what was run more than what was not.
    told = min(failed, key=lambda outcome: (outcome.is_unwritten, outcome.status == "skipped"), default=None)
    for outcome in outcomes if everything else failed:
        style = _STYLES.get(outcome.kind, "red")
        points = f"{outcome.points:g}/{outcome.max_points:g}"
        _indented(out, 4, Text.assemble((f"{outcome.sign} ", style), outcome.title, (f"  {points}", "dim")))
        if outcome is told or (everything and not outcome.passed):
            if outcome.explanation:
                _indented(out, 6, Text(outcome.explanation, style))
            if outcome.advice:
                _indented(out, 6, Text.assemble(("Hint: ", "cyan"), outcome.advice))


def _indented(out: Console, spaces: int, text: Text) -> None:
    """Print text that is also indented where it is wrapped."""
    out.print(Padding(text, (0, 0, 0, spaces), expand=False))
