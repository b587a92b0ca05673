"""One warm sandbox for all tests of it, and a way to ask the process of a submission in it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autograder.sandbox.outside import Sandbox, SandboxProcess, Unavailable
from autograder.sandbox.selftest import SMALL
from ebmcourse.checking.observer import Call, Observer


@pytest.fixture(scope="session")
def sandbox(needs_sandbox: None) -> Iterator[Sandbox]:
    try:
        with Sandbox(limits=SMALL) as sandbox:
            yield sandbox
    except Unavailable as reason:
        pytest.skip(str(reason))


class Submission:
    """A submission in the sandbox; `ask` runs a probe in its process, and raises `NoObservation` without one."""

    def __init__(self, sandbox: Sandbox, files: dict[str, str], budget: float) -> None:
        self.process = SandboxProcess(sandbox, files)
        self.observer = Observer(self.process, files, {}, messages=False, budget=budget)

    def ask(self, probe: Callable[..., Any], *inputs: Any, seconds: float = 30.0) -> Any:
        file = Path(inspect.getfile(probe))
        return self.observer.observe(Call("1a/check", file, probe.__name__, inputs, 0, seconds))

    @property
    def flags(self) -> list[str]:
        return self.observer.flags


@pytest.fixture
def submission(sandbox: Sandbox) -> Iterator[Callable[..., Submission]]:
    """``submission(**texts)``: a submission of the files ``<name>.py`` with these texts."""
    processes: list[SandboxProcess] = []

    def submit(*, budget: float = 300.0, **texts: str) -> Submission:
        made = Submission(sandbox, {f"{name}.py": text for name, text in texts.items()}, budget)
        processes.append(made.process)
        return made

    yield submit
    for process in processes:
        process.close()
