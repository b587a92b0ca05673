"""Which statements of a notebook belong to the program that is graded."""

import ast
from collections.abc import Collection, Sequence
from itertools import chain
from typing import Literal

from ebmcourse.checking.untrusted.statements import ASKS, FUNCTIONS, IMPORTS, Statement, effects

_TRAINING = {"backward", "fit"}  # methods; a function that calls one of them trains, and one that calls this one, too
_SETTINGS = {"setrecursionlimit"}  # functions that set what no name tells and a solution may need


def select(
    statements: Sequence[Statement],
    *,
    needed_by: Literal["solutions", "definitions", "all"] = "solutions",
    absent: Collection[str] = (),
) -> tuple[set[Statement], set[str]]:
    """The statements that run, and the names that are not defined in the end although the notebook sets them.

    All statements run that are not the student's own, and all definitions. Other statements of the student's own run
    where they set or change something that is needed, directly or through other statements. It is needed by the
    statements that are not the student's own, which include the solutions; where nobody knows which cells are
    solutions, by all definitions; or all of it is. Two kinds of statements never run: those of the student's own that
    train or ask for input, or use what was set so, and imports of a module that is `absent`.
    """
    imported = {name for s in statements if isinstance(s.node, IMPORTS) for name in s.binds}
    definitions = {name: s for s in statements if s.is_definition for name in s.binds}
    changes = {s: _changes(s, imported, definitions) for s in statements if s.is_own}
    makers: dict[str, list[Statement]] = {}
    for s, names in changes.items():
        for name in names:
            makers.setdefault(name, []).append(s)
    roots = [s for s in statements if not s.is_own or _SETTINGS & s.effects.calls]
    roots += [s for s in statements if s.is_definition] if needed_by == "definitions" else []
    needed = set(makers) if needed_by == "all" else _needed(roots, makers)
    training: set[str] = set()
    kept: set[Statement] = set()
    lost: set[str] = set()
    for s in statements:
        if s.is_definition:
            is_lost = not _imports(s).isdisjoint(absent)
        elif s.is_own and needed.isdisjoint(changes[s]) and not _SETTINGS & s.effects.calls:
            continue
        elif s.is_own:
            training = training or _training(statements)
            uses_lost = lost and _reached(s.uses(), definitions) & lost
            is_lost = bool(s.effects.calls & training or uses_lost)
        else:
            is_lost = False
        if is_lost:
            lost |= s.binds | ((s.effects.stores | s.effects.touches) - definitions.keys())
        else:
            kept.add(s)
            lost -= s.binds
    return kept, lost


def _changes(s: Statement, imported: set[str], definitions: dict[str, Statement]) -> set[str]:
    """The names that a statement sets, and those whose objects it may change."""
    if s.is_definition:
        return s.binds
    there = s.effects
    changed = s.binds | (there.stores - imported) | ((there.touches | there.passes) - definitions.keys())
    reached = _reached(there.invokes, definitions) if there.invokes else set()
    for inner in (definitions[name].effects for name in reached if name in definitions):
        changed |= inner.globally | ((inner.stores | inner.touches) & reached - definitions.keys())
    return changed


def _needed(roots: Sequence[Statement], makers: dict[str, list[Statement]]) -> set[str]:
    """The names that these statements use, and those that are used to make them; of the names that `makers` make."""
    needed: set[str] = set()
    wanted = [name for s in roots for name in s.uses(makers) | (s.binds if s.is_definition else set())]
    while wanted:
        name = wanted.pop()
        if name not in needed:
            needed.add(name)
            wanted += chain.from_iterable(maker.uses(makers) for maker in makers.get(name, ()))
    return needed


def _reached(names: Collection[str], definitions: dict[str, Statement]) -> set[str]:
    """These names and those that their definitions use, directly or through other definitions."""
    reached: set[str] = set()
    wanted = [*names]
    while wanted:
        name = wanted.pop()
        if name not in reached:
            reached.add(name)
            wanted += definitions[name].uses() if name in definitions else ()
    return reached


def _training(statements: Sequence[Statement]) -> set[str]:
    """The names of the functions, methods and classes that train or ask for input when they are called."""
    calls: dict[str, set[str]] = {}
    for s in statements:
        if isinstance(s.node, FUNCTIONS):
            calls[s.node.name] = s.effects.calls
        elif isinstance(s.node, ast.ClassDef):
            for method in (node for node in s.node.body if isinstance(node, FUNCTIONS)):
                name = s.node.name if method.name == "__init__" else method.name
                calls[name] = calls.get(name, set()) | effects(method).calls
    training = {*_TRAINING, ASKS}
    while more := {name for name, inner in calls.items() if name not in training and not training.isdisjoint(inner)}:
        training |= more
    return training


def _imports(s: Statement) -> set[str]:
    """The top-level modules that an import imports."""
    if isinstance(s.node, ast.Import):
        return {alias.name.split(".")[0] for alias in s.node.names}
    return {(s.node.module or "").split(".")[0]} if isinstance(s.node, ast.ImportFrom) else set()
