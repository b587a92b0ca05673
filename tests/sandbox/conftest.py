"""One warm sandbox for all tests of it, and a way to ask the process of a submission in it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autograder.sandbox import Sandbox, Unavailable
from autograder.sandbox.outside import SandboxProcess
from autograder.sandbox.selftest import SMALL
from ebmcourse.checking.observer import Call, Observer


@pytest.fixture(scope="session")
def sandbox(needs_sandbox: None) -> Iterator[Sandbox]:
    try:
        with Sandbox(limits=SMALL) as sandbox:
            yield sandbox
    except Unavailable as reason:
        pytest.skip(str(reason))


class Inmate:
    """A submission in the sandbox; `ask` runs a probe beside it, and raises `Lost` where that gives nothing."""

    def __init__(self, sandbox: Sandbox, files: dict[str, str], budget: float) -> None:
        self.room = SandboxProcess(sandbox, files)
        self.observer = Observer(self.room, files, {}, messages=False, budget=budget)

    def ask(self, probe: Callable[..., Any], *inputs: Any, seconds: float = 30.0) -> Any:
        file = Path(inspect.getfile(probe))
        return self.observer.observe(Call("1a/check", file, probe.__name__, inputs, 0, seconds))

    @property
    def flags(self) -> list[str]:
        return self.observer.flags


@pytest.fixture
def inmate(sandbox: Sandbox) -> Iterator[Callable[..., Inmate]]:
    """``inmate(**texts)``: a submission of the files ``<name>.py`` with these texts."""
    rooms: list[SandboxProcess] = []

    def move_in(*, budget: float = 300.0, **texts: str) -> Inmate:
        made = Inmate(sandbox, {f"{name}.py": text for name, text in texts.items()}, budget)
        rooms.append(made.room)
        return made

    yield move_in
    for room in rooms:
        room.close()
