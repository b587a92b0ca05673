"""The judge: runs the checks of an assignment, in a trusted process, on one submission after another.

pytest collects the checks and makes their inputs, once. From then on the judgements are plain function calls, because
pytest needs more time to run a test than most judgements take. Grading, the release, `autograder quality`, `ebmcourse
check` and `check_part` all run checks through this module.
"""

import inspect
import itertools
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pytest

from ebmcourse.checking.check import Check
from ebmcourse.checking.compare import Mismatch
from ebmcourse.checking.drawings import Drawing
from ebmcourse.checking.form import TOO_LARGE, first, largest_answer, misfit, other_shape, unsound
from ebmcourse.checking.observer import Call, NoObservation, Observing, Outdated, Request
from ebmcourse.checking.outcome import Outcome, Status
from ebmcourse.checking.probes import probe_source, stand_ins
from ebmcourse.checking.reference import Reference, derive
from ebmcourse.checking.untrusted.student import reset_state

# Plugins that checks do not need; those for logging and warnings would cost more than the judgements.
_UNUSED = "terminal cacheprovider faulthandler logging warnings unraisableexception threadexception debugging doctest"
_UNUSED += " unittest junitxml pastebin setuponly setupplan stepwise tmpdir recwarn legacypath"
_OPTIONS = ["-c", os.devnull, "-s", "--assert=plain", *(f"-pno:{name}" for name in _UNUSED.split())]
_SETTINGS = ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")  # meant for other tests that run in the same shell

Run = Callable[..., tuple[Any, Any]]
Judgement = Callable[..., None]


class BrokenChecks(ValueError):
    """The checks of an assignment cannot be loaded."""


def collect(checks: Path) -> list[Check]:
    """The checks in a folder, in the order of the files and of their lines. Raises `BrokenChecks`."""
    collection = _Collection(None)
    collection.run([checks], "--collect-only")
    return collection.checks


class Judge:
    """Judges submissions by the checks in a folder, or in some files of it; raises `BrokenChecks`."""

    def __init__(self, checks: Path, reference: Reference, files: Iterable[str] = ()) -> None:
        collection = _Collection(reference)
        collection.run([checks / name for name in files] or [checks])
        self.internal_errors: dict[str, str] = {}  # check id -> traceback of a judgement that raised what it should not
        self.calls: dict[str, Call] = {}  # those that the checks have made so far, as ``check id#number``, in order
        self.drawings = collection.drawings
        self.files = collection.files
        self._judgements = collection.judgements
        self._reference = reference

    def outcomes(self, observer: Observing | None, parts: list[str] | None = None) -> list[Outcome]:
        """Run all checks, or those of some parts, on the submission that `observer` observes, in the order of files.

        Without an observer the reference takes the place of the submission, and must pass all checks.
        """
        reset_state(0)
        outcomes: dict[str, Outcome] = {}
        for check, judgement in self._judgements:
            if parts is None or check.part in parts:
                outcomes[check.id] = self._outcome(check, judgement, observer, outcomes)
        return list(outcomes.values())

    def outcome(self, check_id: str, observer: Observing) -> Outcome:
        """Run one check, whatever it needs."""
        reset_state(0)
        check, judgement = next(pair for pair in self._judgements if pair[0].id == check_id)
        return self._outcome(check, judgement, observer, {})

    @cached_property
    def of_reference(self) -> list[Outcome]:
        """The outcomes of the reference."""
        return self.outcomes(None)

    @cached_property
    def requests(self) -> list[Request]:
        """All calls of all checks, in order, in as few requests as possible: for `Observer.ask_ahead`.

        A stand-in for an exercise may be sent to a submission only after that exercise was checked. So a call that
        needs a stand-in which was not sent before begins a new request. There are at least two requests: a program
        that sends more replies than there are requests is found at the next request.
        """
        assert self.of_reference
        requests: list[list[Call]] = []
        sent: set[str] = set()
        for call in dict.fromkeys(self.calls.values()):
            needed = stand_ins(call.file, call.probe)
            if not requests or call.file != requests[-1][0].file or not needed <= sent:
                requests.append([])
            requests[-1].append(call)
            sent |= needed
        if len(requests) == 1 and len(requests[0]) > 1:
            requests.append([requests[0].pop()])
        return [Request(tuple(calls)) for calls in requests]

    def probe_sources(self, parts: list[str] | None = None) -> list[str]:
        """What the process of a submission receives to run the probes of all checks, or of those of some parts."""
        self.outcomes(None, parts)  # makes the calls
        return [probe_source(call.file, call.probe) for call in dict.fromkeys(self.calls.values())]

    def _outcome(
        self, check: Check, judgement: Judgement, observer: Observing | None, earlier: dict[str, Outcome]
    ) -> Outcome:
        status: Status = "passed"
        diagnosis, hint = None, check.hint
        observed: list[tuple[Any, Any]] = []
        try:
            for needed in check.needs:
                if needed in earlier and not earlier[needed].passed:
                    raise NoObservation("skipped", f"Skipped until `{needed}` passes.")
            judgement(run=partial(self._run, check, itertools.count(), observer, observed))
            if mismatch := _mismatch(unsound, observed):
                raise mismatch
        except (KeyboardInterrupt, Outdated):
            raise
        except BaseException as error:  # the outcomes of pytest, such as skip, are not exceptions of class Exception
            expected = isinstance(error, NoObservation | AssertionError)
            reason = error if expected else _mismatch(unsound, observed) or _mismatch(other_shape, observed) or error
            status, diagnosis = _status_of(reason)
            if isinstance(reason, NoObservation) and not reason.hint_helps:
                hint = ""
            if reason is error and not expected:
                self.internal_errors[check.id] = "".join(traceback.format_exception(error))
        return Outcome(
            id=check.id,
            part=check.part,
            title=check.title,
            status=status,
            points=check.points if status == "passed" else 0.0,
            max_points=check.points,
            public=check.public,
            hint=hint,
            diagnosis=diagnosis,
        )

    def _run(
        self,
        check: Check,
        numbers: Iterable[int],
        observer: Observing | None,
        observed: list[tuple[Any, Any]],
        probe: Callable[..., Any],
        *arguments: Any,
    ) -> tuple[Any, Any]:
        """``got, want = run(probe, *inputs)``: what the probe observes of the submission and of the reference.

        A check makes the same calls for every submission, so a call is made once; two checks that ask the same share
        the call.
        """
        key = f"{check.id}#{next(iter(numbers))}"
        if key not in self.calls:
            self.calls[key] = self._new_call(check, key, probe, arguments)
        call = self.calls[key]
        want = self._reference.observation(key, call)
        if observer is None:
            return want, want
        got = observer.observe(call)
        if reason := misfit(got, want):
            if reason == TOO_LARGE:
                observer.flags.append(f"{check.id}: the submission's process sent an observation that is far too large")
            raise Mismatch(reason)
        observed.append((got, want))
        return got, want

    def _new_call(self, check: Check, key: str, probe: Callable[..., Any], arguments: tuple[Any, ...]) -> Call:
        """A call that was not made before, or the one that asks the same for another check."""
        file = Path(inspect.getfile(probe))
        seed = derive(self._reference.seed, f"{file.stem}.{probe.__name__}")
        call = Call(check.id, file, probe.__name__, arguments, seed, check.seconds)
        for known in self.calls.values():
            if known.asks_the_same(call):
                return known
        return replace(call, largest=largest_answer(self._reference.observation(key, call)))


def _mismatch(reason_in: Callable[[Any, Any], str | None], observed: Iterable[tuple[Any, Any]]) -> Mismatch | None:
    """The first reason that a function finds in pairs of observations."""
    reason = first(itertools.starmap(reason_in, observed))
    return Mismatch(reason) if reason else None


def _status_of(error: BaseException) -> tuple[Status, str | None]:
    """The status and the diagnosis that an exception in a check stands for."""
    if isinstance(error, NoObservation):
        return error.status, error.reason
    if isinstance(error, Mismatch):
        return "failed", error.diagnosis or error.reason
    if isinstance(error, AssertionError):
        return "failed", None
    return "error", "Your value has a form that this check cannot judge."


class _Collection:
    """A pytest plugin that keeps each check and its judgement with the inputs filled in, and runs neither."""

    def __init__(self, reference: Reference | None) -> None:
        self.checks: list[Check] = []
        self.judgements: list[tuple[Check, Judgement]] = []
        self.files: dict[str, list[str]] = {}  # part -> the names of the files with its checks
        self.drawings: list[Drawing] = []
        self._reference = reference
        self._complaints: list[str] = []
        self._interrupted = False

    def run(self, paths: list[Path], *options: str) -> None:
        """Collect the checks in files or folders, whatever the environment says about pytest."""
        kept = {name: os.environ.pop(name) for name in _SETTINGS if name in os.environ}
        try:
            pytest.main([*_OPTIONS, *options, *(str(path.resolve()) for path in paths)], plugins=[self])
        finally:
            os.environ.update(kept)
        if self._interrupted:
            raise KeyboardInterrupt
        if self._complaints or not self.checks:
            raise BrokenChecks("\n".join(self._complaints) or f"No checks were found in {paths[0]}.")

    @pytest.fixture(scope="session")
    def draw(self) -> Callable[..., Any]:
        """Where the fixtures made by `inputs` get their values."""
        assert self._reference
        return self._reference.draw

    @pytest.fixture(name="run")
    def run_of_a_judgement(self) -> None:
        """Takes the place of `run`, which the judge passes to a judgement itself."""

    def pytest_pycollect_makeitem(self, obj: object) -> None:
        """Keep the drawings, which are not tests."""
        if isinstance(drawing := getattr(obj, "drawing", None), Drawing):
            self.drawings.append(drawing)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the pytest functions that are checks, and refuse two with one id."""
        items[:] = [item for item in items if hasattr(getattr(item, "function", None), "check")]
        self.checks = [_check(item) for item in items]
        ids = [check.id for check in self.checks]
        if twice := {name for name in ids if ids.count(name) > 1}:
            self._complaints.append(f"Two checks have the same name: {', '.join(sorted(twice))}.")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Forget the modules of the checks: those of another folder may have the same names."""
        folders = {item.path.parent for item in session.items}
        for name, module in list(sys.modules.items()):
            if Path(getattr(module, "__file__", None) or "/").parent in folders:
                del sys.modules[name]
        sys.path[:] = [entry for entry in sys.path if Path(entry) not in folders]

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool:
        given = [name for name in inspect.signature(pyfuncitem.function).parameters if name != "run"]
        judgement = partial(pyfuncitem.function, **{name: pyfuncitem.funcargs[name] for name in given})
        self.judgements.append((_check(pyfuncitem), judgement))
        files = self.files.setdefault(_check(pyfuncitem).part, [])
        if pyfuncitem.path.name not in files:
            files.append(pyfuncitem.path.name)
        return True

    def pytest_collectreport(self, report: pytest.CollectReport | pytest.TestReport) -> None:
        if report.failed:
            self._complaints.append(f"{report.nodeid}: {report.longreprtext}")

    pytest_runtest_logreport = pytest_collectreport

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Remember Ctrl-C, which pytest does not pass on; it calls this with another class when it stops itself."""
        self._interrupted = excinfo.type is KeyboardInterrupt


def _check(item: pytest.Item) -> Check:
    return item.function.check  # type: ignore[attr-defined]
