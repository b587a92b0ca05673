"""A notebook as a program: which of its cells belong to it, and the files that they become.

A notebook that is handed in becomes a module of its name. Its *given* cells (locked) and its *solution* cells run
unchanged. Of all other cells, definitions run, and what the solution needs: a helper may be defined anywhere, and no
training or drawing runs again (`ebmcourse.checking.untrusted.selection`).

Every cell becomes a file of its own, ``cell <name>``, and the module runs them in order. So a traceback names the cell,
and a cell that fails does not stop the next ones, as in Jupyter.
"""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from ebmcourse.syntax import python_text

Role = Literal["given", "solution", "test", "answer", "free"]
MAX_NOTEBOOK_BYTES = 64 * 2**20  # most of a notebook is its outputs
MAX_VALUES = 4_000_000  # of JSON: a list of lists takes twenty times the memory of its text
MAX_CELLS = 2000
MAX_CODE = 2**20  # characters of all cells together
MAX_LINES = 200_000  # of all cells together, texts too; they are taken apart again and again
_LINE_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"  # those of `str.splitlines`

_UNREADABLE = (  # for the student's own check and for feedback
    "no notebook that can be read: save it again in Jupyter or, if that cannot open it, take the copy in the folder "
    "`.ipynb_checkpoints`"
)
_LOADER = '''\
"""The program of the notebook {name}.ipynb: its cells, one after another."""

from ebmcourse.checking.untrusted.cells import run_cells

run_cells(globals(), {cells!r})
'''


@dataclass(frozen=True)
class Cell:
    """One cell: nbgrader's name of it (or none), other names that an editor gave it, its role, text and position."""

    name: str
    ids: tuple[str, ...]
    role: Role
    points: float | None
    is_code: bool
    source: str
    position: int  # counted from 1, as people do
    attachments: Any = field(default=None, repr=False)  # as they are in the file, which may hold anything
    outputs: Any = field(default=None, repr=False)

    @property
    def runs(self) -> bool:
        """Whether the whole cell belongs to the program."""
        return self.is_code and self.role in ("given", "solution")


@dataclass(frozen=True)
class Notebook:
    """The content of a notebook file: its cells, and whether its kernel is one of Python, as far as it says so."""

    cells: tuple[Cell, ...]
    is_python: bool


def read_notebook(content: bytes | str) -> Notebook:
    """Read a notebook file, as far as it matters to grading; metadata of a wrong type counts as none.

    Raises ValueError, completing “it is …”, for a file that cannot be read or is too large.
    """
    content = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content
    if len(content) > MAX_NOTEBOOK_BYTES:
        raise ValueError(f"larger than {MAX_NOTEBOOK_BYTES // 2**20} MiB")
    try:
        if sum(map(content.count, (b",", b"[", b"{"))) > MAX_VALUES:
            raise ValueError
        raw = json.loads(content)
        if raw["nbformat"] != 4 or len(raw["cells"]) > MAX_CELLS:
            raise ValueError
        cells = tuple(_cell(cell, position) for position, cell in enumerate(raw["cells"], start=1))
        is_python = _is_python(_dict(raw.get("metadata")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(_UNREADABLE) from None
    if sum(len(cell.source) for cell in cells if cell.is_code) > MAX_CODE:
        raise ValueError("a notebook with more than a million characters of code")
    if sum(cell.source.count(character) for cell in cells for character in _LINE_BREAKS) > MAX_LINES:
        raise ValueError(f"a notebook with more than {MAX_LINES} lines")
    return Notebook(cells, is_python)


def _cell(raw: dict[str, Any], position: int) -> Cell:
    metadata = _dict(raw.get("metadata"))
    about = _dict(metadata.get("nbgrader"))
    source = raw["source"]
    text = "".join(source) if isinstance(source, list) else source
    text = text.encode("utf-8", "replace").decode("utf-8")  # JSON can hold lone surrogates, which no file can
    ids = (raw.get("id"), metadata.get("id"))  # the second is where Colab writes it
    points = about.get("points")
    return Cell(
        name=_str(about.get("grade_id")),
        ids=tuple(filter(None, map(_str, ids))),
        role=_role(about),
        points=points if isinstance(points, int | float) else None,
        is_code=raw["cell_type"] == "code",
        source=text,
        position=position,
        attachments=raw.get("attachments"),
        outputs=raw.get("outputs"),
    )


def _role(about: dict[str, Any]) -> Role:
    if about.get("grade"):
        return "answer" if about.get("solution") else "test"
    return "solution" if about.get("solution") else "given" if about.get("locked") else "free"


def _is_python(metadata: dict[str, Any]) -> bool:
    """Whether the kernel is one of Python; environments and web sites give it any name, or none."""
    kernel, info = _dict(metadata.get("kernelspec")), _dict(metadata.get("language_info"))
    language = _str(kernel.get("language")) or _str(info.get("name")) or "python"
    return "python" in language.lower()


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _str(value: Any) -> str:
    return value if isinstance(value, str) else ""


def program(name: str, cells: Iterable[Cell]) -> dict[str, str]:
    """The files of the module `name` made of `cells`: the module itself, and one file for each cell of code."""
    files: dict[str, str] = {}
    roles: dict[str, str] = {}
    for cell in cells:
        if cell.is_code:
            is_named = cell.runs and re.fullmatch(r"[\w.-]{1,100}", cell.name)
            first = file = f"cell {cell.name if is_named else cell.position}"
            for number in range(2, MAX_CELLS):  # a cell that was split or copied
                if file not in files:
                    break
                file = f"{first} ({number})"
            files[file], roles[file] = cell.source, cell.role if cell.runs else "own"
    return {f"{name}.py": _LOADER.format(name=name, cells=roles), **files}


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


def program_in(
    folder: Path, handed_in: Iterable[str], given: Iterable[str] = ()
) -> tuple[dict[str, str], dict[str, str]]:
    """The program in a student's own folder, as file name -> text, and its problems, as file name -> sentence.

    Where a notebook is handed in, it consists of this notebook and the given Python files. Otherwise all Python files
    belong to it, also those that are not handed in.
    """
    names = [*handed_in]
    if any(name.endswith(".ipynb") for name in names):
        names += [name for name in given if name.endswith(".py")]
    else:
        names += sorted({path.name for path in folder.glob("*.py")} - {*names})
    files: dict[str, str] = {}
    problems: dict[str, str] = {}
    for name in names:
        try:
            files |= program_of(name, (folder / name).read_bytes())
        except FileNotFoundError:
            problems[module_file(name)] = f"The file `{name}` is missing."
        except OSError as error:
            problems[module_file(name)] = f"The file `{name}` cannot be read: {error.strerror}."
        except ValueError as error:
            problems[module_file(name)] = f"The file `{name}` cannot be used: it is {error}."
    return files, problems


def program_of(name: str, content: bytes) -> dict[str, str]:
    """The program in one file; raises ValueError, completing “it is …”, for a file that cannot be read."""
    if name.endswith(".ipynb"):
        return program(name.removesuffix(".ipynb"), read_notebook(content).cells)
    return {name: python_text(content)}


def module_file(handed_in: str) -> str:
    """The name of the Python module that checks import for a file that is handed in under this name."""
    return re.sub(r"\.ipynb$", ".py", handed_in)
