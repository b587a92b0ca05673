"""Probes: the half of a check that runs beside the student's code.

A check's file holds probes and judgements together. Only the probes may meet the student's code, so `probe_source`
cuts out what one question needs: functions and classes marked `@probe`, and the imports and constants they mention.
"""

from __future__ import annotations

import ast
import importlib
import os
import random
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import torch

Marked = TypeVar("Marked", bound=Callable[..., Any])
_Definition = ast.FunctionDef | ast.ClassDef


def probe(item: Marked) -> Marked:
    """Mark a function or class as one that runs beside the student's code.

    A probe is called as ``probe(student, *inputs)`` and returns an observation. It sees nothing of its file but the
    imports, the other probes, and the constants that they mention.
    """
    item.is_probe = True  # type: ignore[attr-defined]
    return item


def ways(**attempts: Callable[[], Any]) -> dict[str, Any]:
    """Observe in several ways: way -> observation, or None where that way raised; raises where all did.

    For probes; see `assert_either_way` for the judgement.
    """
    seen: dict[str, Any] = {}
    error: Exception | None = None
    for way, attempt in attempts.items():
        try:
            seen[way] = attempt()
        except Exception as found:
            seen[way], error = None, found
    if error is not None and not any(value is not None for value in seen.values()):
        raise error
    return seen


@cache
def probe_source(path: Path, *probes: str) -> str:
    """What of the check file `path` runs beside the student's code when `probes` are asked for, and nothing else.

    That is these probes, and whatever they mention: other probes, imports, constants. ``from stand_ins import …``,
    where ``stand_ins.py`` lies beside `path`, brings the probes that are mentioned along. So a stand-in for an exercise
    comes near a submission only after that exercise was asked about, and is of no use to whoever takes it.
    """
    return "\n".join(ast.unparse(node) for _, node in _parts(path, frozenset(probes))) + "\n"


@cache
def stand_ins(path: Path, probe: str) -> frozenset[str]:
    """The names of the probes that `probe_source` brings along from files beside the check file `path`."""
    parts = _parts(path, frozenset({probe}))
    return frozenset(node.name for file, node in parts if file != path and isinstance(node, _Definition))


def _parts(path: Path, wanted: frozenset[str]) -> list[tuple[Path, ast.stmt]]:
    """The statements that the probes `wanted` of a file need, in their order, with the files where they stand."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    probes = {node.name: node for node in tree.body if isinstance(node, _Definition) and _is_probe(node)}
    kept: set[str] = set()
    mentioned = set(wanted)
    while new := mentioned & probes.keys() - kept:
        kept |= new
        mentioned |= {name.id for probe in new for name in ast.walk(probes[probe]) if isinstance(name, ast.Name)}
    parts: list[tuple[Path, ast.stmt]] = []
    for node in tree.body:
        neighbour = path.parent / f"{node.module}.py" if isinstance(node, ast.ImportFrom) else None
        if neighbour and neighbour.is_file():
            parts += _parts(neighbour, frozenset(_names(node) & mentioned))
        elif (isinstance(node, _Definition) and node.name in kept) or _names(node) & mentioned:
            parts.append((path, node))
    return parts


def _is_probe(node: ast.FunctionDef | ast.ClassDef) -> bool:
    return any(isinstance(decorator, ast.Name) and decorator.id == "probe" for decorator in node.decorator_list)


def _names(node: ast.stmt) -> set[str]:
    """The names that an import or an assignment at the top of a file binds."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    targets = node.targets if isinstance(node, ast.Assign) else []
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


class Missing(Exception):
    """A file of the assignment is not there."""


class Student:
    """The modules of one submission: ``student.ex_model`` imports ``ex_model.py`` from its folder at first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __getattr__(self, name: str) -> ModuleType:
        if name.startswith("_"):
            raise AttributeError(name)
        if not (self._folder / f"{name}.py").is_file():
            raise Missing(f"{name}.py")
        if not self._is_own(sys.modules.get(name)):
            for path in self._folder.glob("*.py"):  # another program's modules of these names
                if not self._is_own(sys.modules.get(path.stem)):
                    sys.modules.pop(path.stem, None)
            sys.path[:] = [str(self._folder), *(entry for entry in sys.path if entry != str(self._folder))]
        return importlib.import_module(name)

    def _is_own(self, module: ModuleType | None) -> bool:
        return module is not None and Path(getattr(module, "__file__", None) or "/").parent == self._folder


def reset_world(seed: int) -> None:
    """Give a probe the state of a fresh process: random seeds, default dtype, grad mode, working mode of torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would also queue work for GPUs, at every call
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    if torch.are_deterministic_algorithms_enabled():  # setting it imports 900 modules, which takes seconds
        torch.use_deterministic_algorithms(False)
    if torch.get_num_threads() != 1:  # one thread: the same sums in the same order on every machine
        torch.set_num_threads(1)
    os.environ.pop("PYTEST_CURRENT_TEST", None)  # nothing says that this is a grader
