"""A notebook's own kernel as the process in which its functions are checked, as they are defined at this moment.

Nothing has to be saved before, and nothing runs twice. After each question the kernel has its old state again: its
names, its random number generators, and the settings of torch.
"""

from __future__ import annotations

import random
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ebmcourse.checking.observation import decode
from ebmcourse.checking.observer import TimedOut
from ebmcourse.checking.untrusted.server import answer


class KernelProcess:
    """Answers questions about the module `name` with what is defined in ``__main__``."""

    def __init__(self, name: str) -> None:
        self._main = sys.modules["__main__"]
        self._student = SimpleNamespace(**{name: self._main})
        self._probes: dict[str, dict[str, Any]] = {}

    def ask(self, frame: bytes, seconds: float) -> bytes:
        with _unchanged(vars(self._main)), _Alarm(seconds) as alarm:
            reply = answer(decode(frame), self._student, self._probes, _is_cell)
        if alarm.rang == signal.SIGINT:
            raise KeyboardInterrupt
        if alarm.rang:
            raise TimedOut
        return reply

    def close(self) -> None:
        """Do nothing: the kernel goes on."""


def _is_cell(file: str) -> bool:
    """Whether a file of a traceback is a cell of the notebook."""
    return re.search(r"ipykernel_\d+|<ipython-input", file) is not None


class _Stopped(BaseException):
    """Ends a student's code from outside, past an ``except Exception``."""


class _Alarm:
    """Stops the code in the context after some seconds or at Ctrl-C, and remembers which of them it was.

    This needs the main thread and a system with timers; elsewhere the code has no time limit.
    """

    rang: int | None = None

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._works = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> _Alarm:
        if self._works:
            self._before = {number: signal.signal(number, self._ring) for number in (signal.SIGALRM, signal.SIGINT)}
            signal.setitimer(signal.ITIMER_REAL, self._seconds, 0.5)  # again and again, for loops with a bare `except`
        return self

    def __exit__(self, *error: object) -> None:
        if self._works:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _ring(self, number: int, _: object) -> None:
        self.rang = self.rang or number
        raise _Stopped


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
