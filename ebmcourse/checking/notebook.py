"""What the cells of an assignment's notebook call: `check_part` for the tested ones, `once_written` for the others.

nbgrader reads a tested cell's points from its output: a number as the last expression is partial credit, anything on
standard error is no credit, and no output at all is full credit.
"""

from __future__ import annotations

import atexit
import hashlib
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path

from ebmcourse.checking.kernel import KernelRoom
from ebmcourse.checking.local import LocalRoom
from ebmcourse.checking.outcome import Outcome
from ebmcourse.checking.session import read_sheet, run_public_checks

GREEN, RED, GREY = "#1b7f4b", "#b3261e", "#6b6b6b"
_MARKS = {
    "passed": ("✓", "passed", GREEN),
    "failed": ("✗", "failed", RED),
    "error": ("✗", "stopped", RED),
    "timeout": ("✗", "too slow", RED),
    "memory": ("✗", "too much memory", RED),
    "skipped": ("–", "skipped", GREY),
}


def check_part(part: str) -> float | None:
    """Run the public checks of one part, show what came out, and return the points.

    They run on the files beside the notebook or, where the notebook itself is handed in, on what it has defined.

    Where nbgrader only validates the notebook and all these checks pass, there is no number: it would be less than
    the cell's points, of which the hidden checks have a share, and nbgrader would call it a failure.
    """
    folder = Path.cwd()
    sheet = read_sheet(folder)
    room = KernelRoom(sheet.notebook) if sheet.notebook else _room(folder)
    with _standard_error_closed():
        outcomes = run_public_checks(folder, part, room)
    report = Report(part, sheet.parts.get(part, ""), outcomes, "public checks")
    report.show()
    is_validation = os.environ.get("NBGRADER_EXECUTION") == "validate"
    return None if is_validation and report.all_passed else report.points


@contextmanager
def once_written() -> Iterator[None]:
    """Around code that uses an exercise: where it still says `NotImplementedError`, one line instead of a traceback."""
    try:
        yield
    except NotImplementedError as error:
        print(f"Not yet: {error}")


@dataclass(frozen=True)
class Report:
    """The outcomes of one part, as a notebook shows them."""

    part: str
    title: str
    outcomes: list[Outcome]
    kind: str  # of checks

    @property
    def points(self) -> float:
        return round(sum(outcome.points for outcome in self.outcomes), 6)

    @property
    def max_points(self) -> float:
        return round(sum(outcome.max_points for outcome in self.outcomes), 6)

    @property
    def all_passed(self) -> bool:
        return all(outcome.passed for outcome in self.outcomes)

    @property
    def summary(self) -> str:
        if not self.outcomes:
            return f"there are no {self.kind}"
        return f"{self.points:g} of {self.max_points:g} points by the {self.kind}"

    def show(self) -> None:
        from IPython.display import display  # only notebooks need it, and they have it

        display(self)

    def __repr__(self) -> str:
        lines = [f"{self.part}  {self.title}: {self.summary}"]
        for outcome in self.outcomes:
            sign, word, _ = _MARKS[outcome.status]
            lines.append(f"  {sign} {outcome.points:g}/{outcome.max_points:g}  {outcome.title} ({word})")
            lines += [f"      {advice}" for advice in _advice(outcome)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        colour = GREEN if self.all_passed else RED
        head = (
            f'<div style="padding:.3em .6em;border-left:.3em solid {colour}">'
            f"<b>{escape(self.part)}</b>&ensp;{_rich(self.title)}&ensp;"
            f'<b style="color:{colour}">{escape(self.summary)}</b></div>'
        )
        rows = "".join(_row(outcome) for outcome in self.outcomes)
        return f'{head}<table style="border-collapse:collapse;margin:.3em 0;color:inherit">{rows}</table>'


def _row(outcome: Outcome) -> str:
    sign, word, colour = _MARKS[outcome.status]
    pill = f"background:{colour};color:white;border-radius:.8em;padding:.05em .6em;white-space:nowrap"
    text = f"<div>{_rich(outcome.title)}</div>"
    text += "".join(f'<div style="opacity:.8">{_rich(advice)}</div>' for advice in _advice(outcome))
    cells = (
        f'<span style="{pill}">{sign} {word}</span>',
        f'<span style="white-space:nowrap">{outcome.points:g} / {outcome.max_points:g}</span>',
        text,
    )
    style = "text-align:left;vertical-align:top;padding:.25em .6em"
    return "<tr>" + "".join(f'<td style="{style}">{cell}</td>' for cell in cells) + "</tr>"


def _advice(outcome: Outcome) -> list[str]:
    if outcome.passed:
        return []
    hint = f"Hint: {outcome.hint}" if outcome.hint and outcome.status != "skipped" else ""
    return [line for line in (outcome.diagnosis, hint) if line]


def _rich(text: str) -> str:
    """Text as HTML in which nothing of the text is HTML; `so` becomes code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


class _WarmRoom(LocalRoom):
    """A room that stays open from cell to cell, because its imports take longer than all checks.

    A changed program gets a new process, and so does one whose process is gone.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, read_sheet(folder).modules)
        self._running = ""

    def ask(self, frame: bytes, seconds: float) -> bytes:
        program = hashlib.sha256()
        for path in sorted(self._folder.glob("*.py")):
            program.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
        is_gone = self._process is not None and self._process.poll() is not None
        if is_gone or program.hexdigest() != self._running:
            self.close()
        self._running = program.hexdigest()
        try:
            return super().ask(frame, seconds)
        except BaseException:  # after an interrupt, the reply to this question would answer the next one
            self.close()
            raise


@cache
def _room(folder: Path) -> _WarmRoom:
    room = _WarmRoom(folder)
    atexit.register(room.close)
    return room


@contextmanager
def _standard_error_closed() -> Iterator[None]:
    """Lose what is written to standard error, also by the student's process, which inherits it."""
    saved = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere, redirect_stderr(io.StringIO()):
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
