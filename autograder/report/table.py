"""A table of the class for the terminal."""

from collections.abc import Sequence
from statistics import fmean

from rich.table import Table
from rich.text import Text

from autograder.results import Result
from autograder.text import listed, number, on_one_line, percent

_BAR_WIDTH = 10
_PARTS_SHOWN = 3
_MAX_CELL = 40


def class_table(results: Sequence[Result]) -> Table:
    """Return one row per student: mark, bar, the parts with lost points, and flags."""
    table = Table(title=_plain(results[0].assignment) if results else None, show_footer=bool(results))
    average = percent(fmean(result.fraction for result in results)) if results else ""
    table.add_column("student", footer=f"mean of {len(results)}")
    table.add_column("mark", justify="right", footer=average, no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("points lost in")
    table.add_column("notes")
    for result in sorted(results, key=lambda result: result.student):
        lost = list(dict.fromkeys(check.part for check in result.checks if not check.passed))
        notes = ["no sandbox"] if result.confined is False else []
        if result.flags:
            notes.append(f"{len(result.flags)} flag{'s' if len(result.flags) > 1 else ''}")
        filled = _BAR_WIDTH if result.fraction == 1 else min(round(_BAR_WIDTH * result.fraction), _BAR_WIDTH - 1)
        table.add_row(
            _plain(result.student),
            f"{number(result.score)} / {number(result.max_score)}",
            "█" * filled + "░" * (_BAR_WIDTH - filled),
            _plain(listed(lost, _PARTS_SHOWN) or "–"),
            Text(", ".join(notes), style="yellow"),
        )
    return table


def _plain(text: str) -> Text:
    """Return text on one line that rich does not read as markup, without control characters."""
    line = on_one_line(text)
    return Text(line if len(line) <= _MAX_CELL else f"{line[: _MAX_CELL - 1]}…")
