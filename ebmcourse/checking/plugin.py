"""The pytest plugin that runs checks: gives them `run` and their inputs, and turns what happens into outcomes."""

from __future__ import annotations

import inspect
import itertools
import os
import sys
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from ebmcourse.checking.answers import Answers, derive
from ebmcourse.checking.compare import Mismatch, require_structure
from ebmcourse.checking.exercise import Exercise
from ebmcourse.checking.observer import Call, Lost, Observer, Request
from ebmcourse.checking.outcome import Outcome, Status
from ebmcourse.checking.probe import stand_ins

# Plugins that checks have no use for; those for logging and warnings would cost more than the judging.
_UNUSED = "terminal cacheprovider faulthandler logging warnings unraisableexception threadexception debugging doctest"
_UNUSED += " unittest junitxml pastebin setuponly setupplan stepwise tmpdir recwarn legacypath"
_OPTIONS = ["-c", os.devnull, "-s", "--assert=plain", *(f"-pno:{name}" for name in _UNUSED.split())]
_SETTINGS = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")  # of whoever runs other tests in the same shell

Run = Callable[..., tuple[Any, Any]]
_CHECKS = pytest.StashKey["Checks"]()


def run_pytest(checks: Path, *plugins: object) -> None:
    """Run pytest on the checks in a folder, whatever the environment says about pytest."""
    kept = {name: os.environ.pop(name) for name in _SETTINGS if name in os.environ}
    interrupts = _Interrupts()
    try:
        pytest.main([*_OPTIONS, str(checks.resolve())], plugins=[interrupts, *plugins])
    finally:
        os.environ.update(kept)
    if interrupts.pressed:
        raise KeyboardInterrupt


class _Interrupts:
    """A pytest plugin that notices Ctrl-C, which pytest keeps to itself."""

    pressed = False

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Called for Ctrl-C, and with another class for what pytest stops at."""
        self.pressed = excinfo.type is KeyboardInterrupt


@pytest.fixture(scope="session")
def draw(pytestconfig: pytest.Config) -> Callable[..., Any]:
    """Where the fixtures made by `inputs` get their values."""
    return pytestconfig.stash[_CHECKS].answers.draw


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    """``got, want = run(probe, *inputs)``: the observations that the probe makes of student and reference."""
    return request.config.stash[_CHECKS].run_of(_exercise(request.node))


class Checks:
    """Runs the checks of one assignment on the submission that `observer` looks at (none: on the reference itself).

    After the session (or after each round of items) `outcomes` holds one `Outcome` for every check, by its id, and
    `surprises` the tracebacks of judgements that failed in a way their author did not foresee.
    """

    def __init__(self, answers: Answers, observer: Observer | None = None) -> None:
        self.answers = answers
        self.observer = observer
        self.outcomes: dict[str, Outcome] = {}
        self.surprises: dict[str, str] = {}
        self._calls: dict[str, Call] = {}  # all that was asked so far, in its order

    def run_of(self, check: Exercise) -> Run:
        """The `run` of one check of one submission.

        The inputs of a check's calls are the same for every submission, so a call is made once and asked often; where
        another check asks the same, it is the same call.
        """
        numbers = itertools.count()

        def run(probe: Callable[..., Any], *arguments: Any) -> tuple[Any, Any]:
            key = f"{check.id}#{next(numbers)}"
            if key not in self._calls:
                file = Path(inspect.getfile(probe))
                seed = derive(self.answers.seed, f"{file.stem}.{probe.__name__}")
                call = Call(check.id, file, probe.__name__, arguments, seed, check.seconds)
                self._calls[key] = next((known for known in self._calls.values() if known.asks_the_same(call)), call)
            call = self._calls[key]
            want = self.answers.want(key, call)
            got = self.observer.observe(call) if self.observer else want
            require_structure(got, want)
            return got, want

        return run

    def requests(self) -> list[Request]:
        """All that was asked so far, in its order, and as much as possible in one request.

        A stand-in for an exercise must come near a submission after that exercise was asked about. So a call that
        brings one along which has not been there before begins a new request. There are two requests at least: that a
        program answers more often than it is asked shows when it is asked again.
        """
        requests: list[list[Call]] = []
        met: set[str] = set()
        for call in dict.fromkeys(self._calls.values()):
            along = stand_ins(call.file, call.probe)
            if not requests or call.file != requests[-1][0].file or not along <= met:
                requests.append([])
            requests[-1].append(call)
            met |= along
        if len(requests) == 1 and len(requests[0]) > 1:
            requests.append([requests[0].pop()])
        return [Request(tuple(calls)) for calls in requests]

    def require(self, check: Exercise) -> None:
        """Raise `Lost` where the check needs another one that has not passed."""
        for needed in check.needs:
            other = self.outcomes.get(needed)
            if other is not None and other.status != "passed":
                raise Lost("skipped", f"Skipped until `{needed}` passes.")

    def conclude(self, check: Exercise, error: BaseException | None) -> None:
        """Keep the outcome of a check that ended with this exception, or with none."""
        status, diagnosis = judge(error)
        if error and not isinstance(error, Lost | AssertionError):
            self.surprises[check.id] = "".join(traceback.format_exception(error))
        self.outcomes[check.id] = Outcome(
            id=check.id,
            part=check.part,
            title=check.title,
            status=status,
            points=check.points if status == "passed" else 0.0,
            max_points=check.points,
            public=check.public,
            hint=check.hint,
            diagnosis=diagnosis,
        )

    def pytest_configure(self, config: pytest.Config) -> None:
        """Make the fixtures of this module find this object."""
        config.stash[_CHECKS] = self
        config.pluginmanager.register(sys.modules[__name__])

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the pytest functions that are checks, and refuse two with one id."""
        items[:] = [item for item in items if hasattr(getattr(item, "function", None), "exercise")]
        ids = [_exercise(item).id for item in items]
        if twice := {name for name in ids if ids.count(name) > 1}:
            raise pytest.UsageError(f"two checks have the same name: {', '.join(sorted(twice))}")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Forget the modules of the checks: another session's may have the same names."""
        folders = {item.path.parent for item in session.items}
        for name, module in list(sys.modules.items()):
            if Path(getattr(module, "__file__", None) or "/").parent in folders:
                del sys.modules[name]
        sys.path[:] = [entry for entry in sys.path if Path(entry) not in folders]

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Skip a check that needs another one which has not passed."""
        self.require(_exercise(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Turn what happened into an outcome."""
        report = yield
        if call.when == "call" or call.excinfo is not None:
            self.conclude(_exercise(item), call.excinfo.value if call.excinfo else None)
        return report


def judge(error: BaseException | None) -> tuple[Status, str | None]:
    """The status and the diagnosis that an exception in a check stands for."""
    if error is None:
        return "passed", None
    if isinstance(error, Lost):
        return error.status, error.reason
    if isinstance(error, Mismatch):
        return "failed", error.diagnosis or error.reason
    if isinstance(error, AssertionError):
        return "failed", None
    return "error", "Your value has a form that this check cannot judge."


def _exercise(item: pytest.Item) -> Exercise:
    return item.function.exercise  # type: ignore[attr-defined]
