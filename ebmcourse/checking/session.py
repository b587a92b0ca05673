"""The public checks on a student's own machine, against the recorded observations of the reference."""

from __future__ import annotations

import tomllib
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ebmcourse.checking.answers import Recorded
from ebmcourse.checking.local import LocalRoom
from ebmcourse.checking.observer import Observer, Room
from ebmcourse.checking.outcome import Outcome
from ebmcourse.checking.plugin import Checks, run_pytest
from ebmcourse.checking.program import laid_out, program_in


class Unusable(ValueError):
    """A folder is no assignment, or its checks cannot be loaded; the message says what to do."""


@dataclass(frozen=True)
class Sheet:
    """What the released ``checks/assignment.toml`` says about an assignment."""

    title: str
    parts: dict[str, str]  # the exercises, in order, and their titles
    files: tuple[str, ...]  # that are handed in
    modules: tuple[str, ...]  # that the program will import
    seconds: float  # computing time for all checks together

    @property
    def notebook(self) -> str | None:
        """The name, without its ending, of the notebook that is handed in; None where it is Python files."""
        return next((name.removesuffix(".ipynb") for name in self.files if name.endswith(".ipynb")), None)


def read_sheet(folder: Path) -> Sheet:
    """The sheet of the assignment in `folder`; raises `Unusable` where there is none."""
    try:
        about = tomllib.loads((folder / "checks" / "assignment.toml").read_text("utf-8"))
        seconds = float(about["limits"]["seconds"])
        return Sheet(about["title"], about["parts"], tuple(about["files"]), tuple(about.get("modules", ())), seconds)
    except OSError:
        raise Unusable(
            f"There is no folder `checks` in {folder}: go to the folder of the assignment, or fetch it again."
        ) from None
    except (tomllib.TOMLDecodeError, KeyError, ValueError):
        raise Unusable(f"The folder `checks` in {folder} is damaged: fetch the assignment again.") from None


def run_public_checks(folder: Path, part: str | None = None, room: Room | None = None) -> list[Outcome]:
    """Run the public checks of the program in `folder`, or those of one part, in the order of the files.

    Without a `room` the program runs in a process that is started, and ended, here. Raises `Unusable` where the
    checks cannot be loaded or there is no such part.
    """
    folder = folder.resolve()
    sheet = read_sheet(folder)
    if part is not None and part not in sheet.parts:
        raise Unusable(f"There is no part {part!r}: this assignment has {', '.join(sheet.parts)}.")
    try:
        answers = Recorded(folder / "checks" / "recorded.safetensors")
    except (OSError, ValueError):
        raise Unusable(f"The folder `checks` in {folder} is damaged: fetch the assignment again.") from None
    files, problems = program_in(folder, sheet.files)
    with ExitStack() as stack:
        if room is None:
            place = laid_out(files) if sheet.notebook else nullcontext(folder)
            room = LocalRoom(stack.enter_context(place), sheet.modules)
            stack.callback(room.close)
        observer = Observer(room, files, problems, messages=True, budget=sheet.seconds)
        checks, selection = Checks(answers, observer), _Selection(part)
        run_pytest(folder / "checks", checks, selection)
    if selection.complaints:
        raise Unusable(f"The checks cannot be loaded ({selection.complaints[0]}): fetch the assignment again.")
    return list(checks.outcomes.values())


class _Selection:
    """A pytest plugin that keeps the public checks, or those of one part."""

    def __init__(self, part: str | None) -> None:
        self.complaints: list[str] = []
        self._part = part

    @pytest.hookimpl(trylast=True)  # `Checks` forgets the modules of all items that are there by then
    def pytest_collection_finish(self, session: Any) -> None:
        session.items[:] = filter(self._is_wanted, session.items)

    def _is_wanted(self, item: Any) -> bool:
        exercise = item.function.exercise
        return exercise.public and self._part in (None, exercise.part)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.complaints.append(report.longreprtext.strip().splitlines()[-1])
