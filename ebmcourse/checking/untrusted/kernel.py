"""A notebook's own kernel as the process in which its functions are checked, as they are defined at this moment.

Nothing has to be saved before, and nothing runs twice. Names that grading would not define are hidden from the
functions while they are asked, so that a check fails here as it would there. After each question the kernel has its old
state again: its names, its random number generators, and the settings of torch.
"""

from __future__ import annotations

import builtins
import inspect
import linecache
import random
import re
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
import torch

from ebmcourse.checking.observation import decode
from ebmcourse.checking.observer import MAX_LINES, TimedOut
from ebmcourse.checking.program import read_notebook
from ebmcourse.checking.untrusted.cells import NOT_DEFINED
from ebmcourse.checking.untrusted.selection import select
from ebmcourse.checking.untrusted.server import NO_INPUT, answer
from ebmcourse.checking.untrusted.statements import Statement, parse
from ebmcourse.checking.untrusted.student import NotRun

_DEFINED = re.compile(r"^(?:async +def|def|class) +(\w+)", re.MULTILINE)  # at the top level, also in a broken cell
_DYNAMIC = {"exec", "globals", "locals", "setattr", "vars"}  # with these a cell can set names that it does not tell


class KernelProcess:
    """Answers questions about the module `name` with what is defined in ``__main__``; `given` files come with it."""

    def __init__(self, name: str, given: Iterable[str] = ()) -> None:
        self._name = name
        self._given = {Path(file).stem for file in given}
        self._main = sys.modules["__main__"]
        self._student = SimpleNamespace(**{name: self._main})
        self._probes: dict[str, dict[str, Any]] = {}

    def start(self) -> None:
        """Do nothing: the kernel is running."""

    def ask(self, frame: bytes, seconds: float) -> bytes:
        NOT_DEFINED.clear()
        NOT_DEFINED.update(self._hidden)
        with _unchanged(vars(self._main)), _without_input(), _Alarm(seconds) as alarm:
            for name in NOT_DEFINED:
                vars(self._main).pop(name, None)
            for name in ("exit", "quit"):  # those of IPython would end the kernel
                if self._shell and vars(self._main).get(name) is self._shell.exiter:
                    vars(self._main)[name] = sys.exit
            vars(self._main)["__getattr__"] = _missing
            reply = answer(decode(frame), self._student, self._probes, self._name_of)
        if alarm.rang == signal.SIGINT:
            raise KeyboardInterrupt
        if alarm.rang:
            raise TimedOut
        return reply

    def close(self) -> None:
        """Do nothing: the kernel goes on."""

    @property
    def outdated(self) -> list[str]:
        """The functions and classes that an earlier cell has defined than the last one that was to define them.

        That one stopped with an error before it did.
        """
        ran: dict[str | None, int] = {cell: place for place, cell in enumerate(self._ran)}
        last = {name: place for place, cell in enumerate(self._ran) for name in _DEFINED.findall(cell)}
        names = vars(self._main)
        return sorted(n for n, place in last.items() if n in names and ran.get(_cell_of(names[n]), place) < place)

    @property
    def cells(self) -> dict[str, str]:
        """The texts of the cells that were run last, by their names; so many that an observer can quote their lines."""
        texts: dict[str, str] = {}
        lines = 0
        for number, text in reversed([*enumerate(self._ran)]):
            lines += text.count("\n") + 1
            if lines > MAX_LINES:
                break
            texts[f"cell In[{number}]"] = text
        return texts

    def _name_of(self, file: str) -> str:
        """The name of a cell, as IPython writes it, from its file in a traceback; empty for other files."""
        if not re.search(r"ipykernel_\d+|<ipython-input", file):
            return ""
        label = self._shell and self._shell.compile.format_code_name(file)
        return f"cell {label[1]}" if label else Path(file).name

    @property
    def _ran(self) -> list[str]:
        """The cells that were run, as IPython has understood them; their places are the numbers of the prompts."""
        return self._shell.history_manager.input_hist_parsed if self._shell else []

    @property
    def _shell(self) -> Any:
        """IPython's shell, if it is the one of this notebook; else None."""
        shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
        return shell if shell is not None and shell.user_ns is vars(self._main) else None

    @cached_property
    def _hidden(self) -> set[str]:
        """The names that grading would not define: those that `select` leaves out, and those that no cell sets.

        The cells are those that have been run. Which of them are given or solution cells, the saved notebook tells.
        """
        shell = self._shell
        if shell is None:
            return set()
        whole = _whole_cells(Path(f"{self._name}.ipynb"))
        cells = shell.history_manager.input_hist_raw
        statements = [s for cell in cells for s in _statements(cell, is_own=cell.strip() not in whole)]
        modules = {path.stem for path in Path().glob("*.py")} | {
            path.parent.name for path in Path().glob("*/__init__.py")
        }
        kept, lost = select(statements, needed_by="all", absent=modules - self._given)
        known = {name for s in kept for name in s.binds | s.effects.globally}
        if "*" in known or any(s.uses(_DYNAMIC) for s in statements):
            return lost  # the cells do not tell all names
        others = {name for name in vars(self._main) if not name.startswith("_")}
        return lost | others.difference(known, shell.user_ns_hidden)


def _missing(name: str) -> Any:
    """What a check gets where the kernel lacks a name of the program."""
    if name in NOT_DEFINED:
        raise AttributeError(f"the notebook does not define {name!r}")
    raise NotRun(f"`{name}` is not defined: its cell was not run, or stopped with an error. Run that cell first.")


def _whole_cells(notebook: Path) -> set[str]:
    try:
        return {cell.source.strip() for cell in read_notebook(notebook.read_bytes()).cells if cell.runs}
    except (OSError, ValueError):  # it may be somewhere else: a kernel need not know
        return set()


@lru_cache(maxsize=1000)
def _statements(cell: str, *, is_own: bool) -> list[Statement]:
    try:
        return list(parse(cell, is_own=is_own))
    except Exception:  # it did not run in the kernel either
        return []


def _cell_of(value: Any) -> str | None:
    """The text of the cell that has defined a function or a class, as IPython keeps it; None where it is unknown."""
    members = vars(value).values() if isinstance(value, type) else ()
    functions = [member for member in (inspect.unwrap(value), *members) if isinstance(member, FunctionType)]
    lines = linecache.getlines(functions[0].__code__.co_filename) if functions else ()
    return "".join(lines).rstrip("\n") or None


_TICK = 0.1  # seconds
_ASLEEP = 0.002  # computing in a tick, in seconds: less than a program gets that waits for a processor


class _Stopped(BaseException):
    """Ends a student's code from outside, past an ``except Exception``."""


class _Alarm:
    """Stops the code in the context after some seconds or at Ctrl-C, and remembers which of them it was.

    As in `LocalProcess`, the seconds are those that the code computes or sleeps, not those for which a busy machine
    makes it wait. This needs the main thread and a system with timers; elsewhere the code has no time limit.
    """

    rang: int | None = None

    def __init__(self, seconds: float) -> None:
        self._left = seconds
        self._works = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> _Alarm:
        if self._works:
            self._computed = time.process_time()
            self._before = {number: signal.signal(number, self._ring) for number in (signal.SIGALRM, signal.SIGINT)}
            signal.setitimer(signal.ITIMER_REAL, _TICK, _TICK)
        return self

    def __exit__(self, *error: object) -> None:
        if self._works:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _ring(self, number: int, _: object) -> None:
        computed = time.process_time()
        used, self._computed = computed - self._computed, computed
        self._left -= used if used > _ASLEEP else _TICK
        if number == signal.SIGALRM and self._left > 0:
            return
        self.rang = self.rang or number
        signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)  # again and again, for loops with a bare `except`
        raise _Stopped


@contextmanager
def _without_input() -> Iterator[None]:
    """Let `input` raise what it raises in grading, instead of asking the person at the keyboard."""

    def refuse(prompt: object = "") -> str:
        raise EOFError(NO_INPUT)

    before, builtins.input = builtins.input, refuse
    try:
        yield
    finally:
        builtins.input = before


@contextmanager
def _unchanged(names: dict[str, Any]) -> Iterator[None]:
    """Restore a namespace, the random number generators and the settings of torch afterwards."""
    before = dict(names)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    dtype, gradients, threads = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        yield
    finally:
        names.clear()
        names.update(before)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)
        torch.set_num_threads(threads)
        if torch.are_deterministic_algorithms_enabled() != deterministic:  # setting it imports 900 modules
            torch.use_deterministic_algorithms(deterministic)
