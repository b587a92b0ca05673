"""What a probe is given: the modules of a program, in a process with a known state."""

import importlib
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ebmcourse.checking.observation import Ways


class Missing(Exception):
    """A file of the assignment was not handed in."""


class Student:
    """The modules of one program: ``student.ex_model`` imports ``ex_model.py`` from its folder at first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getattr__(self, name: str) -> ModuleType:
        if name.startswith("_"):
            raise AttributeError(name)
        if not (self._folder / f"{name}.py").is_file():
            raise Missing(f"{name}.py")
        if not self._is_own(sys.modules.get(name)):
            for path in self._folder.glob("*.py"):  # modules of these names that belong to another program
                if not self._is_own(sys.modules.get(path.stem)):
                    sys.modules.pop(path.stem, None)
            sys.path[:] = [str(self._folder), *(entry for entry in sys.path if entry != str(self._folder))]
        return importlib.import_module(name)

    def _is_own(self, module: ModuleType | None) -> bool:
        return module is not None and Path(getattr(module, "__file__", None) or "/").parent == self._folder


class Refused(Exception):
    """A probe or a stand-in cannot use what it is given; the message is the sentence that the student reads."""


class NotRun(AttributeError):
    """A notebook's kernel lacks a name of the program; the message is what the student reads."""


def require(condition: bool, sentence: str) -> None:
    """Fail the check with `sentence` unless the condition holds: for probes and stand-ins.

    The sentence must be a plain string in the file of the probe. Nothing else reaches the student, because the process
    of a submission could send any text.
    """
    if not condition:
        raise Refused(sentence)


def ways(**attempts: Callable[[], Any]) -> Ways:
    """Observe in several ways: way -> observation, or None where that way raised; raises if all ways raised.

    For probes; see `ebmcourse.checking.assert_either_way` for the judgement. If all ways raised, a sentence of
    `require` counts most, and the last exception otherwise.
    """
    seen = Ways()
    errors: list[Exception] = []
    for way, attempt in attempts.items():
        try:
            seen[way] = attempt()
        except Exception as error:
            seen[way] = None
            errors.append(error)
    if errors and all(value is None for value in seen.values()):
        raise next((error for error in errors if isinstance(error, Refused)), errors[-1])
    return seen


def reset_state(seed: int) -> None:
    """Give a probe the state of a fresh process: random seeds, default dtype, grad mode, deterministic mode."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would also queue work for GPUs, at every call
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    if torch.are_deterministic_algorithms_enabled():  # setting it imports 900 modules, which takes seconds
        torch.use_deterministic_algorithms(False)
    if torch.get_num_threads() != 1:  # one thread: the same sums in the same order on every machine
        torch.set_num_threads(1)
    os.environ.pop("PYTEST_CURRENT_TEST", None)  # nothing tells a submission that this is a grader
