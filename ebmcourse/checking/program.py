"""A notebook as a program: which of its cells belong to it, and the files that they become.

A notebook that is handed in becomes a module of its name. Its *given* cells (locked) and its *solution* cells run
unchanged. Of all other cells only imports, functions, classes and assignments of plain values are taken: a helper may
be defined anywhere, and no training or drawing runs again.

Every cell becomes a file of its own, ``cell <name>``, and the module runs them in order. So a traceback names the cell,
and a cell that fails does not stop the next ones, as in Jupyter.
"""

from __future__ import annotations

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

_LOADER = '''\
"""The program of the notebook {name}.ipynb: its cells, one after another."""

from ebmcourse.checking.untrusted.cells import run_cells

run_cells(globals(), {cells!r})
'''


@dataclass(frozen=True)
class Cell:
    """One cell: nbgrader's name of it (or none), its role, its text, and its position."""

    name: str
    id: str
    role: Role
    points: float | None
    is_code: bool
    source: str
    position: int  # counted from 1, as people do

    @property
    def runs(self) -> bool:
        """Whether the whole cell belongs to the program."""
        return self.is_code and self.role in ("given", "solution")


@dataclass(frozen=True)
class Notebook:
    """The content of a notebook file: its cells, and the name of its kernel (or none)."""

    cells: tuple[Cell, ...]
    kernel: str


def read_notebook(text: str) -> Notebook:
    """Read a notebook file; raises ValueError, completing “it is …”, for a file that cannot be read."""
    try:
        raw = json.loads(text.removeprefix("\ufeff"))  # a byte order mark, as Windows writes it
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
    text = "".join(lines).encode("utf-8", "replace").decode("utf-8")  # JSON can hold lone surrogates, which no file can
    return Cell(name, number, _role(about), points, raw["cell_type"] == "code", text, position)


def _role(about: dict[str, Any]) -> Role:
    if about.get("grade"):
        return "answer" if about.get("solution") else "test"
    return "solution" if about.get("solution") else "given" if about.get("locked") else "free"


def program(name: str, cells: Iterable[Cell]) -> dict[str, str]:
    """The files of the module `name` made of `cells`: the module itself, and one file for each cell that it runs."""
    files: dict[str, str] = {}
    whole: dict[str, bool] = {}
    for cell in cells:
        if cell.is_code and (cell.runs or cell.role == "free"):
            file = f"cell {cell.name if cell.runs else cell.position}"
            files[file], whole[file] = cell.source, cell.runs
    return {f"{name}.py": _LOADER.format(name=name, cells=whole), **files}


@contextmanager
def laid_out(files: dict[str, str]) -> Iterator[Path]:
    """A new folder with the files of a program in it, for as long as the context lasts."""
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        write_program(folder, files)
        yield folder


def write_program(folder: Path, files: dict[str, str]) -> None:
    """Write the files of a program into a folder that holds nothing else."""
    for path in folder.iterdir():
        if path.is_file() and path.name not in files:
            path.unlink()
    for file, text in files.items():
        (folder / file).write_text(text, "utf-8", newline="\n")


def program_in(folder: Path, handed_in: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """The program in a student's own folder, as file name -> text, and its problems, as file name -> sentence.

    All Python files belong to it, also those that are not handed in, and the notebooks that are handed in.
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
    """The name of the Python module that checks import for a file that is handed in under this name."""
    return re.sub(r"\.ipynb$", ".py", handed_in)
