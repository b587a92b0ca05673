"""Repair of a notebook: the student's solution cells in the notebook that was released.

Students delete, copy and edit cells that they should not, by accident or on purpose. Grading undoes this: given and
tested cells are those of the release, and only what a student may write is taken from the student's notebook.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from ebmcourse.checking.program import Cell, Notebook

_KINDS = {"given": "given cell", "test": "tested cell", "solution": "solution cell", "answer": "written answer"}


def repair(released: Notebook, handed_in: Notebook) -> tuple[list[Cell], list[str]]:
    """The cells to grade, in the order of the release, and a sentence about everything that was repaired."""
    named = {cell.name: cell for cell in released.cells if cell.name}
    found: dict[str, list[Cell]] = {name: [] for name in named}
    added: dict[str, list[Cell]] = {"": []}  # cells of the student's own, by the named cell that they follow
    last = ""
    for cell in handed_in.cells:
        name = _name(cell, named)
        if name:
            found[name].append(cell)
            last = name
        else:
            added.setdefault(last, []).append(replace(cell, name="", role="free"))
    remarks = list(_about_kernel(released, handed_in))
    cells = added[""]
    for name, given in named.items():
        versions = found[name]
        if given.role == "solution" and given.is_code and not versions:
            versions = _by_definitions(given, added)
        remarks += _remarks(given, versions)
        cells.append(_that_counts(given, versions))
        cells += added.get(name, [])
    return cells, remarks


def _name(cell: Cell, named: dict[str, Cell]) -> str:
    """The released cell that this one is, by nbgrader's name or, where an editor has lost the metadata, by its id."""
    for name in (cell.name, cell.id):
        if name in named and named[name].is_code == cell.is_code:
            return name
    return ""


def _by_definitions(given: Cell, added: dict[str, list[Cell]]) -> list[Cell]:
    """Cells without a name that define all that the missing solution cell should; they are taken out of `added`."""
    wanted = _defined(given.source)
    for cells in added.values():
        for cell in cells:
            if cell.is_code and wanted and wanted <= _defined(cell.source):
                cells.remove(cell)
                return [cell]
    return []


def _defined(source: str) -> set[str]:
    return set(re.findall(r"^(?:def|class)\s+(\w+)", source, re.MULTILINE))


def _that_counts(given: Cell, versions: list[Cell]) -> Cell:
    """The cell of the release with the student's text in it, where a student may write: the last that was written."""
    if given.role not in ("solution", "answer"):
        return given
    written = [cell for cell in versions if not _same(cell, given)]
    return replace(given, source=(written or [given])[-1].source)


def _remarks(given: Cell, versions: list[Cell]) -> Iterator[str]:
    what = f"the {_KINDS[given.role]} `{given.name}`"
    may_write = given.role in ("solution", "answer")
    if not versions:
        yield f"{what} is missing; " + ("it counts as not written" if may_write else "it was put back")
    if len(versions) > 1:
        yield f"{what} is there more than once; " + ("the last that was written counts" if may_write else "one counts")
    if not may_write and any(not _same(cell, given) for cell in versions):
        yield f"{what} was changed; it was put back"
    if any(cell.name and (cell.role, cell.points) != (given.role, given.points) for cell in versions):
        yield f"the points or the kind of {what} were changed; they were put back"


def _same(cell: Cell, given: Cell) -> bool:
    return cell.source.strip() == given.source.strip()


def _about_kernel(released: Notebook, handed_in: Notebook) -> Iterator[str]:
    if handed_in.kernel != released.kernel:
        yield "the notebook asks for another kernel than Python 3; it was graded with Python 3"
