"""The cells of a notebook, run one after another in the module that they make (see `ebmcourse.checking.program`)."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

_VALUES = (ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.UnaryOp, ast.BinOp)
_BETWEEN_VALUES = (ast.unaryop, ast.operator, ast.keyword, ast.expr_context)


def plain_python(source: str) -> str:
    """A cell without the lines that only Jupyter knows (``%matplotlib inline``); the other lines keep their numbers."""
    try:
        ast.parse(source)
        return source
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return re.sub(r"^[ \t]*[%!?].*$|^.*\w\?+[ \t]*$", "", source, flags=re.MULTILINE)


def definitions(source: str) -> str:
    """What a cell defines: imports, functions, classes, and names of plain values; lines keep their numbers.

    The result is empty for a cell that is not valid Python.
    """
    source = plain_python(source)
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    lines = source.split("\n")
    kept = [""] * len(lines)
    for node in body:
        if _defines(node):
            decorators = getattr(node, "decorator_list", [])
            first = min([node.lineno, *(decorator.lineno for decorator in decorators)])
            kept[first - 1 : node.end_lineno] = lines[first - 1 : node.end_lineno]
    return "\n".join(kept)


def _defines(node: ast.stmt) -> bool:
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return node.value is None or all(map(_is_plain, ast.walk(node.value)))
    return isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def _is_plain(node: ast.AST) -> bool:
    """Whether an expression of such nodes depends on nothing and is cheap: ``4 * 8``, ``float("inf")``, ``[1, 2]``."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name)
    if isinstance(node, ast.Name):
        return node.id in ("float", "int", "complex", "bool", "set", "frozenset", "list", "tuple", "dict")
    return isinstance(node, (*_VALUES, *_BETWEEN_VALUES))


def run_cells(namespace: dict[str, Any], cells: dict[str, bool]) -> None:
    """Run the files of cells in the module whose globals are `namespace`: a whole cell, or only what it defines.

    Cells are parsed here, in the process of the submission: hostile code can crash Python's parser. Access to a name
    that the module does not have raises the exception of the cell that should have defined it.
    """
    folder = Path(namespace["__file__"]).parent
    failed: dict[str, Exception] = {}
    for name, whole in cells.items():
        file = folder / name
        source = file.read_text("utf-8")
        try:
            code = plain_python(source) if whole else definitions(source)
            exec(compile(code, str(file), "exec", dont_inherit=True), namespace)
        except Exception as error:
            failed[name] = error

    def missing(wanted: str) -> Any:
        pattern = re.compile(rf"\b(def|class)\s+{re.escape(wanted)}\b|^{re.escape(wanted)}\s*=", re.MULTILINE)
        for name, error in failed.items():
            if pattern.search((folder / name).read_text("utf-8")):
                raise error
        raise AttributeError(f"the notebook does not define {wanted!r}")

    namespace["__getattr__"] = missing
