"""A notebook as a program: which of its cells count, and how they run one after another outside of Jupyter.

A notebook that is handed in becomes a module of its name. Its *given* cells (locked) and its *solution* cells run as
they are. All other cells are for looking and trying: of these only imports, functions, classes and assignments of
plain values are taken, so that a helper may stand anywhere, and no training or drawing is run again.

Every cell becomes a file of its own, ``cell <name>``, and the module runs them in order. So a traceback names the cell,
and a cell that fails does not stop the next ones, as in Jupyter.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

Role = Literal["given", "solution", "test", "answer", "free"]
MAX_CELLS = 2000

_VALUES = (ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.UnaryOp, ast.BinOp)
_BETWEEN_VALUES = (ast.unaryop, ast.operator, ast.keyword, ast.expr_context)

_LOADER = '''\
"""The program of the notebook {name}.ipynb: its cells, one after another."""

from ebmcourse.checking.program import run_cells

run_cells(globals(), {cells!r})
'''


@dataclass(frozen=True)
class Cell:
    """One cell: the name that nbgrader knows it by (or none), what it is there for, its text, and where it stands."""

    name: str
    id: str
    role: Role
    points: float | None
    is_code: bool
    source: str
    position: int  # counted from 1, as people do

    @property
    def runs(self) -> bool:
        """Whether it belongs to the program as it is."""
        return self.is_code and self.role in ("given", "solution")


@dataclass(frozen=True)
class Notebook:
    """What a notebook file says: its cells, and the name of the kernel that it wants (or none)."""

    cells: tuple[Cell, ...]
    kernel: str


def read_notebook(text: str) -> Notebook:
    """Read a notebook file; raises ValueError, completing “it is …”, where it is none that can be read."""
    try:
        raw = json.loads(text)
        if raw["nbformat"] != 4 or len(raw["cells"]) > MAX_CELLS:
            raise ValueError
        cells = tuple(_cell(cell, position) for position, cell in enumerate(raw["cells"], start=1))
        return Notebook(cells, str(raw.get("metadata", {}).get("kernelspec", {}).get("name", "")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError("no notebook that can be read: save it from Jupyter and hand it in again") from None


def _cell(raw: dict[str, Any], position: int) -> Cell:
    about = raw.get("metadata", {}).get("nbgrader") or {}
    source, name, number = raw["source"], about.get("grade_id", ""), raw.get("id", "")
    lines = source if isinstance(source, list) else [source]
    if not all(isinstance(text, str) for text in [*lines, name, number, raw["cell_type"]]):
        raise ValueError
    points = float(about["points"]) if "points" in about else None
    text = "".join(lines).encode("utf-8", "replace").decode("utf-8")  # JSON can hold what no file can
    return Cell(name, number, _role(about), points, raw["cell_type"] == "code", text, position)


def _role(about: dict[str, Any]) -> Role:
    if about.get("grade"):
        return "answer" if about.get("solution") else "test"
    return "solution" if about.get("solution") else "given" if about.get("locked") else "free"


def program(name: str, cells: Iterable[Cell]) -> dict[str, str]:
    """The files of the module `name` that `cells` make: the module itself, and one file for each cell that counts."""
    files: dict[str, str] = {}
    whole: dict[str, bool] = {}
    for cell in cells:
        if cell.is_code and (cell.runs or cell.role == "free"):
            file = f"cell {cell.name if cell.runs else cell.position}"
            files[file], whole[file] = cell.source, cell.runs
    return {f"{name}.py": _LOADER.format(name=name, cells=whole), **files}


def plain_python(source: str) -> str:
    """A cell without the lines that only Jupyter knows (``%matplotlib inline``); the others keep their numbers."""
    try:
        ast.parse(source)
        return source
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return re.sub(r"^[ \t]*[%!?].*$|^.*\w\?+[ \t]*$", "", source, flags=re.MULTILINE)


def definitions(source: str) -> str:
    """What a cell defines: imports, functions, classes, and names of plain values; lines keep their numbers.

    Of a cell that is no Python nothing is left.
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
    """Whether an expression of such nodes needs nothing and takes no time: ``4 * 8``, ``float("inf")``, ``[1, 2]``."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name)
    if isinstance(node, ast.Name):
        return node.id in ("float", "int", "complex", "bool", "set", "frozenset", "list", "tuple", "dict")
    return isinstance(node, (*_VALUES, *_BETWEEN_VALUES))


def run_cells(namespace: dict[str, Any], cells: dict[str, bool]) -> None:
    """Run files beside the module whose globals are `namespace`, in that module: a whole cell, or what it defines.

    Cells are parsed here, beside the program, and not by whoever grades: Python's parser can be made to crash. Whoever
    then asks the module for a name that is not there gets the exception of the cell that should have defined it.
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


@contextmanager
def laid_out(files: dict[str, str]) -> Iterator[Path]:
    """A new folder with the files of a program in it, for as long as the context lasts."""
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for file, text in files.items():
            (folder / file).write_text(text, "utf-8", newline="\n")
        yield folder


def program_in(folder: Path, handed_in: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The program in a student's own folder, as file name -> text, and what is wrong: file name -> sentence.

    Python files are taken as they are, also those that are not handed in; notebooks that are handed in are read.
    """
    files = {path.name: path.read_text("utf-8", errors="replace") for path in folder.glob("*.py")}
    problems: dict[str, str] = {}
    for name in handed_in:
        path = folder / name
        if not path.is_file():
            problems[module_file(name)] = f"The file `{name}` is missing."
        elif path.suffix == ".ipynb":
            try:
                files |= program(path.stem, read_notebook(path.read_text("utf-8", errors="replace")).cells)
            except ValueError as error:
                problems[module_file(name)] = f"The file `{name}` cannot be used: it is {error}."
    return files, problems


def module_file(handed_in: str) -> str:
    """The name of the Python file by which checks reach what was handed in under this name."""
    return re.sub(r"\.ipynb$", ".py", handed_in)
