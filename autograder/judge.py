"""The judge: one pytest session in a trusted process that judges submission after submission.

Starting pytest costs a quarter of a second, so its session stays open: collected once, its checks run again for
every submission that comes.
"""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from ebmcourse.checking.answers import Answers
from ebmcourse.checking.observer import Observer
from ebmcourse.checking.outcome import Outcome
from ebmcourse.checking.plugin import PYTEST_OPTIONS, Checks

_END: Any = object()


class BrokenChecks(Exception):
    """The checks of an assignment cannot be loaded."""


class Judge:
    """Judges submissions by the checks in a folder; start once, then call `outcomes` for each."""

    def __init__(self, checks: Path, answers: Answers) -> None:
        self._checks = Checks(answers)
        self._folder = checks.resolve()
        self._observers: queue.Queue[Any] = queue.Queue()
        self._replies: queue.Queue[list[Outcome] | Exception] = queue.Queue()
        self._complaints: list[str] = []
        self._thread = threading.Thread(target=self._session, name="judge", daemon=True)
        self._thread.start()

    def outcomes(self, observer: Observer | None) -> list[Outcome]:
        """Run all checks on the submission that `observer` looks at, in the order in which they stand in the files.

        Without an observer they run on the reference, which must pass them all.
        """
        self._observers.put(observer)
        reply = self._replies.get()
        if isinstance(reply, Exception):
            raise reply
        return reply

    @property
    def surprises(self) -> dict[str, str]:
        """Check id -> traceback of a judgement that failed in a way its author did not foresee."""
        return self._checks.surprises

    def close(self) -> None:
        """End the session."""
        self._observers.put(_END)
        self._thread.join()

    def _session(self) -> None:
        try:
            pytest.main([*PYTEST_OPTIONS, str(self._folder)], plugins=[self._checks, self])
            raise BrokenChecks("\n".join(self._complaints) or f"No checks were found in {self._folder}.")
        except BaseException as error:
            while self._observers.get() is not _END:  # whoever asks from now on learns why there is no answer
                self._replies.put(BrokenChecks(str(error)))

    @pytest.hookimpl
    def pytest_collectreport(self, report: Any) -> None:
        """Keep what pytest has to say about a file of checks that cannot be loaded."""
        if report.failed:
            self._complaints.append(f"{report.nodeid}: {report.longreprtext}")

    @pytest.hookimpl
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Judge each submission that comes, until the end is asked for."""
        if session.testsfailed or not session.items:
            return None
        following = [*session.items[1:], session.items[0]]  # never None: session fixtures live on
        while (observer := self._observers.get()) is not _END:
            self._checks.observer = observer
            self._checks.outcomes = {}
            for item, after in zip(session.items, following, strict=True):
                runtestprotocol(item, nextitem=after, log=False)
            self._replies.put(list(self._checks.outcomes.values()))
        self._observers.put(_END)
        return True
