"""Probes: the half of a check that runs with the student's code.

A file of checks holds probes and judgements. Only the probes may enter the process of a submission, so `probe_source`
extracts what one question needs: functions and classes marked `@probe`, and the imports and constants they mention.
"""

import ast
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

Marked = TypeVar("Marked", bound=Callable[..., Any])
_Definition = ast.FunctionDef | ast.ClassDef


def probe(item: Marked) -> Marked:
    """Mark a function or class as one that runs with the student's code; `probe_source` finds the mark in the text.

    A probe is called as ``probe(student, *inputs)`` and returns an observation. Of its file it sees only the imports,
    the other probes, and the constants that they mention.
    """
    return item


@cache
def probe_source(path: Path, *probes: str) -> str:
    """The part of the check file `path` that the process of a submission needs to run `probes`.

    These are the probes and what they mention: other probes, imports, constants. An import from a file in the same
    folder, such as ``from stand_ins import …``, adds the probes of that file that are mentioned. So a stand-in for an
    exercise is sent to a submission only after that exercise was checked, when it is of no use to a cheat.
    """
    return "\n".join(ast.unparse(node) for _, node in _parts(path, frozenset(probes))) + "\n"


@cache
def sentences(path: Path, probe: str) -> frozenset[str]:
    """All texts in the source of a probe and of what it mentions: those that `require` may say."""
    tree = ast.parse(probe_source(path, probe))
    return frozenset(
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


@cache
def stand_ins(path: Path, probe: str) -> frozenset[str]:
    """The names of the probes that `probe_source` adds from other files in the folder of the check file `path`."""
    parts = _parts(path, frozenset({probe}))
    return frozenset(node.name for file, node in parts if file != path and isinstance(node, _Definition))


def _parts(path: Path, wanted: frozenset[str]) -> list[tuple[Path, ast.stmt]]:
    """The statements that the probes `wanted` of a file need, in order, each with the file that it is from."""
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
        elif isinstance(node, _Definition) and node.name in kept:
            node.decorator_list = [decorator for decorator in node.decorator_list if not _is_mark(decorator)]
            parts.append((path, node))
        elif _names(node) & mentioned:
            if isinstance(node, ast.Import | ast.ImportFrom):
                node.names = [alias for alias in node.names if _bound(alias) in mentioned]
            parts.append((path, node))
    return parts


def _is_probe(node: ast.FunctionDef | ast.ClassDef) -> bool:
    return any(_is_mark(decorator) for decorator in node.decorator_list)


def _is_mark(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Name) and decorator.id == "probe"


def _bound(alias: ast.alias) -> str:
    return (alias.asname or alias.name).split(".")[0]


def _names(node: ast.stmt) -> set[str]:
    """The names that an import or an assignment at the top of a file binds."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {_bound(alias) for alias in node.names}
    targets = node.targets if isinstance(node, ast.Assign) else []
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
