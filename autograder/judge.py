"""The judge: the checks of an assignment in a trusted process, run on submission after submission.

pytest collects the checks and makes their inputs, once. From then on the judgements are called as the functions that
they are: pytest's own round for a test takes longer than most of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ebmcourse.checking.answers import Answers
from ebmcourse.checking.exercise import Exercise
from ebmcourse.checking.observer import Observer
from ebmcourse.checking.outcome import Outcome
from ebmcourse.checking.plugin import Checks, run_pytest
from ebmcourse.checking.probe import reset_world


class BrokenChecks(Exception):
    """The checks of an assignment cannot be loaded."""


class Judge:
    """Judges submissions by the checks in a folder; raises `BrokenChecks` where these cannot be loaded."""

    def __init__(self, checks: Path, answers: Answers) -> None:
        self._checks = Checks(answers)
        collector = _Collector()
        run_pytest(checks, self._checks, collector)
        if collector.complaints or not collector.judgements:
            raise BrokenChecks("\n".join(collector.complaints) or f"No checks were found in {checks}.")
        self._judgements = collector.judgements
        self.of_reference = self.outcomes(None)
        self._requests = self._checks.requests()

    def outcomes(self, observer: Observer | None) -> list[Outcome]:
        """Run all checks on the submission that `observer` looks at, in the order in which they stand in the files.

        Without an observer they run on the reference, which must pass them all.
        """
        reset_world(0)  # of a thread that may have done anything before
        self._checks.observer = observer
        self._checks.outcomes = {}
        if observer is not None:
            observer.ask_ahead(self._requests)
        for check, judgement in self._judgements:
            error: BaseException | None = None
            try:
                self._checks.require(check)
                judgement(run=self._checks.run_of(check))
            except KeyboardInterrupt:
                raise
            except BaseException as raised:  # pytest.fail and its like are no Exception
                error = raised
            self._checks.conclude(check, error)
        return list(self._checks.outcomes.values())

    @property
    def surprises(self) -> dict[str, str]:
        """Check id -> traceback of a judgement that failed in a way its author did not foresee."""
        return self._checks.surprises


class _Collector:
    """A pytest plugin that keeps each check's judgement with its inputs, instead of calling it."""

    def __init__(self) -> None:
        self.judgements: list[tuple[Exercise, Callable[..., None]]] = []
        self.complaints: list[str] = []

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool:
        given = [name for name in inspect.signature(pyfuncitem.function).parameters if name != "run"]
        judgement = partial(pyfuncitem.function, **{name: pyfuncitem.funcargs[name] for name in given})
        self.judgements.append((pyfuncitem.function.exercise, judgement))
        return True

    @pytest.hookimpl
    def pytest_collectreport(self, report: Any) -> None:
        self._complain(report)

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: Any) -> None:
        self._complain(report)

    def _complain(self, report: Any) -> None:
        if report.failed:
            self.complaints.append(f"{report.nodeid}: {report.longreprtext}")
