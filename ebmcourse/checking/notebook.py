"""What the cells of an assignment's notebook call: `check_part` in tested cells, `once_written` in others.

nbgrader reads the points of a tested cell from its output: a number as the last expression is partial credit, anything
on standard error is no credit, and no output at all is full credit.
"""

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

from ebmcourse.checking.local import LocalProcess
from ebmcourse.checking.observer import StudentProcess
from ebmcourse.checking.outcome import Kind, Outcome
from ebmcourse.checking.public import PublicChecks
from ebmcourse.checking.untrusted.kernel import KernelProcess

_GREEN, _RED, _GREY = "#1b7f4b", "#b3261e", "#6b6b6b"


def check_part(part: str) -> float | None:
    """Run the public checks of one part, show the outcomes, and return the points.

    They run on the files in the notebook's folder or, where the notebook itself is handed in, on what it has defined.

    Where nbgrader only validates the notebook and all these checks pass, the result is None: a number would be less
    than the points of the cell, which include those of the hidden checks, and nbgrader would report a failure.
    """
    part = str(part)  # check_part(3) is as good as check_part("3")
    checks = PublicChecks(Path.cwd(), part)
    name = checks.description.notebook_name
    process: StudentProcess
    if name:
        process = KernelProcess(name, checks.description.given)
    else:
        process = _process(checks.folder, checks.description.modules)
    with _standard_error_closed():
        outcomes = checks.outcomes(process, cells=process.cells if isinstance(process, KernelProcess) else None)
    title = ", ".join(checks.description.parts[exercise] for exercise in checks.parts or ())
    note = outdated_note(process.outdated) if isinstance(process, KernelProcess) else ""
    report = Report(part, title, outcomes, "public checks", note)
    points = report.show()
    is_validation = os.environ.get("NBGRADER_EXECUTION") == "validate"
    return None if is_validation and report.all_passed else points


def outdated_note(names: list[str]) -> str:
    """What to say where cells with errors were to define these names again; an empty text without names."""
    if not names:
        return ""
    listed = ", ".join(f"`{name}`" for name in names)
    return f"The last cell that defines {listed} stopped with an error: what was defined before is checked."


@contextmanager
def once_written() -> Iterator[None]:
    """For code that uses an exercise: while the exercise is not implemented, print one line and no traceback."""
    try:
        yield
    except NotImplementedError as error:
        print(f"Not yet: {error}")


class _Points(float):
    """The result of a tested cell: nbgrader reads it, and a notebook shows nothing below the report."""

    def _repr_html_(self) -> str:
        return ""


@dataclass(frozen=True)
class Report:
    """The outcomes of one part, as a notebook shows them."""

    part: str
    title: str
    outcomes: list[Outcome]
    kind: str  # of checks
    note: str = ""

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
        return f"{self.points:g} of {self.max_points:g} points from the {self.kind}"

    def show(self) -> float:
        """Show the outcomes, and return the points."""
        from IPython.display import display  # only notebooks need it, and they have it

        display(self)
        return _Points(self.points)

    def __repr__(self) -> str:
        lines = [f"{self.part}  {self.title}: {self.summary}"]
        lines += [f"  {self.note}"] if self.note else []
        for outcome in self.outcomes:
            points = f"{outcome.points:g}/{outcome.max_points:g}"
            lines.append(f"  {outcome.sign} {points}  {outcome.title} ({outcome.word})")
            lines += [f"      {line}" for line in _lines(outcome)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        colour = _GREEN if self.all_passed else _RED
        head = (
            f'<div style="padding:.3em .6em;border-left:.3em solid {colour}">'
            f"<b>{escape(self.part)}</b>&ensp;{_rich(self.title)}&ensp;"
            f'<b style="color:{colour}">{escape(self.summary)}</b></div>'
        )
        head += f'<div style="padding:.3em .6em">{_rich(self.note)}</div>' if self.note else ""
        rows = "".join(_row(outcome) for outcome in self.outcomes)
        return f'{head}<table style="border-collapse:collapse;margin:.3em 0;color:inherit">{rows}</table>'


def _row(outcome: Outcome) -> str:
    pill = f"background:{_colour(outcome.kind)};color:white;border-radius:.8em;padding:.05em .6em;white-space:nowrap"
    text = f"<div>{_rich(outcome.title)}</div>"
    text += "".join(f'<div style="opacity:.8">{_rich(line)}</div>' for line in _lines(outcome))
    cells = (
        f'<span style="{pill}">{outcome.sign} {outcome.word}</span>',
        f'<span style="white-space:nowrap">{outcome.points:g} / {outcome.max_points:g}</span>',
        text,
    )
    style = "text-align:left;vertical-align:top;padding:.25em .6em"
    return "<tr>" + "".join(f'<td style="{style}">{cell}</td>' for cell in cells) + "</tr>"


def _colour(kind: Kind) -> str:
    return {"passed": _GREEN, "skipped": _GREY, "unwritten": _GREY}.get(kind, _RED)


def _lines(outcome: Outcome) -> list[str]:
    return [line for line in (outcome.explanation, outcome.advice and f"Hint: {outcome.advice}") if line]


def _rich(text: str) -> str:
    """Text as HTML in which `backticks` mark code and all else is escaped."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


class _WarmProcess(LocalProcess):
    """A process that is kept from cell to cell, because its imports take longer than all checks.

    A program that has changed runs in a fresh process.
    """

    _running = ""

    def start(self) -> None:
        program = hashlib.sha256()
        for path in sorted(self.folder.glob("*.py")):
            program.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
        if program.hexdigest() != self._running:
            self.restart()
        self._running = program.hexdigest()
        super().start()

    def ask(self, frame: bytes, seconds: float) -> bytes:
        try:
            return super().ask(frame, seconds)
        except BaseException:  # after an interrupt, the reply to this question would answer the next one
            self.close()
            raise


@cache
def _process(folder: Path, modules: tuple[str, ...]) -> _WarmProcess:
    process = _WarmProcess(folder, modules)
    atexit.register(process.close)
    return process


@contextmanager
def _standard_error_closed() -> Iterator[None]:
    """Discard what is written to standard error, also by the student's process, which inherits it."""
    saved = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere, redirect_stderr(io.StringIO()):
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
