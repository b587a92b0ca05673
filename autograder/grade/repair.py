"""Repair of a notebook: the student's work in the notebook that was released.

Students delete, copy, split, join and edit cells, and editors lose the metadata by which cells are known. Grading
undoes this: given and tested cells are those of the release, and what the student wrote is found wherever it is.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from ebmcourse.checking.program import Cell, Notebook

_KINDS = {"given": "given cell", "test": "tested cell", "solution": "solution cell", "answer": "written answer"}
_INSTEAD = {"answer": "text in other cells waits for a person", "solution": "another cell defines what it should"}
_DEFINITION = re.compile(r"^(?:async[ \t]+)?(?:def|class)[ \t]+(\w+)", re.MULTILINE)


def repair(released: Notebook, handed_in: Notebook) -> tuple[list[Cell], list[str]]:
    """The cells to grade, in the order of the release, and a sentence about everything that was repaired.

    A cell of the release is followed by the student's own cells that follow it in the student's notebook. All written
    versions of a solution cell are taken, in their order. A given or tested cell that was changed is taken before the
    original, as a cell of the student's own for what it defines besides, or as a solution cell where it defines what a
    solution should.
    """
    both = Comparison(released, handed_in)
    groups: dict[str, list[Cell]] = {name: [] for name in ("", *both.named)}
    changed: dict[str, list[Cell]] = {name: [] for name in both.named}
    last = ""
    for cell in handed_in.cells:
        name = both.names.get(cell.position, "")
        last = name or last
        if not name:
            groups[last].append(replace(cell, name="", role="free"))
        elif both.named[name].role == "solution":
            groups[name] += [replace(cell, name=name, role="solution")] if both.is_written(cell) else []
        elif both.is_written(cell):
            is_solution = not both.unfound.isdisjoint(both.defined(cell))
            changed[name].append(replace(cell, name="", role="solution" if is_solution else "free"))
    cells = groups[""]
    for name, given in both.named.items():
        is_replaced = given.role == "solution" and both.work(name)
        cells += [*changed[name], *([] if is_replaced else [given]), *groups[name]]
    return cells, list(remarks(both))


@dataclass(frozen=True)
class Comparison:
    """A notebook that was handed in, compared with the one that was released."""

    released: Notebook
    handed_in: Notebook

    @cached_property
    def named(self) -> dict[str, Cell]:
        """The cells of the release that students get from it or fill in, by nbgrader's name."""
        return {cell.name: cell for cell in self.released.cells if cell.name and cell.role in _KINDS}

    @cached_property
    def names(self) -> dict[int, str]:
        """The names of the student's cells, by position; a cell of the student's own has none.

        A cell is known by nbgrader's name, by the id that the release gave it, by its text, or else by the functions
        and classes that it defines, if no other cell does that is known as a part of the release.
        """
        texts = {_text(cell): name for name, cell in self.named.items() if cell.role != "answer" and _text(cell)}
        names: dict[int, str] = {}
        for cell in self.handed_in.cells:
            candidates = (cell.name, *cell.ids, texts.get(_text(cell), ""))
            if name := next((name for name in candidates if name in self.named and self._fits(cell, name)), ""):
                names[cell.position] = name
        others = [cell for cell in self.handed_in.cells if cell.position not in names]
        found = set[str]().union(*(self.defined(cell) for cell in self.handed_in.cells if cell.position in names))
        for name, given in self.named.items():
            wanted = _defined(given) - found if given.role == "solution" else set()
            names |= {cell.position: name for cell in others if not wanted.isdisjoint(self.defined(cell))}
        return names

    def _fits(self, cell: Cell, name: str) -> bool:
        return cell.is_code == self.named[name].is_code or self.named[name].role == "answer"

    def is_written(self, cell: Cell) -> bool:
        """Whether the student's cell holds something else than a cell of the release."""
        return cell.position in self._written

    @cached_property
    def _written(self) -> dict[int, set[str]]:
        """The positions of the cells that the student has written, and what they define."""
        texts = {"", *map(_text, self.released.cells)}
        written = [cell for cell in self.handed_in.cells if _text(cell) not in texts]
        return {cell.position: _defined(cell) if cell.is_code else set() for cell in written}

    def defined(self, cell: Cell) -> set[str]:
        """The functions and classes that the student has defined in a cell."""
        return self._written.get(cell.position, set())

    def versions(self, name: str) -> list[Cell]:
        """The student's versions of a cell of the release: none, or several where it was split or copied."""
        return [cell for cell in self.handed_in.cells if self.names.get(cell.position) == name]

    def work(self, name: str) -> list[Cell]:
        """What the student has written into a cell of the release, or else what stands elsewhere instead of it."""
        given = self.named[name]
        if written := [cell for cell in self.versions(name) if self.is_written(cell)]:
            return written
        if given.role == "answer":
            return self._strayed.get(name, [])
        return [cell for cell in self.handed_in.cells if not _defined(given).isdisjoint(self.defined(cell))]

    @cached_property
    def unfound(self) -> set[str]:
        """What solution cells should define, and none that is known as a solution cell does."""
        solutions = [name for name, given in self.named.items() if given.role == "solution"]
        wanted = set[str]().union(*(_defined(self.named[name]) for name in solutions))
        return wanted.difference(*(self.defined(cell) for name in solutions for cell in self.versions(name)))

    @cached_property
    def _strayed(self) -> dict[str, list[Cell]]:
        """Texts outside of the cells for written answers, by the nearest of these cells that was not filled in.

        These are the student's own markdown cells, and what was added to other markdown cells and to given and tested
        cells of the release. Nobody can tell from outside whether they are answers.
        """
        cells = self.released.cells
        places = {key: place for place, cell in enumerate(cells) for key in (_text(cell), *cell.ids, cell.name) if key}
        empty = [name for name, given in self.named.items() if given.role == "answer"]
        empty = [name for name in empty if not any(map(self.is_written, self.versions(name)))]
        found: dict[str, list[Cell]] = {}
        last = -1
        for cell in self.handed_in.cells if empty else ():
            known = [key for key in (self.names.get(cell.position), *cell.ids, _text(cell)) if key in places]
            last = places[known[0]] if known else last
            given = cells[last] if known else None
            may_hold_text = given.role not in ("answer", "solution") if given else True
            if cell.is_code:
                may_hold_text = given is not None and given.role in ("given", "test") and not self.defined(cell)
            if may_hold_text and (text := _added(cell, given)):
                middle = last if given else last + 0.5
                nearest = min(empty, key=lambda name: abs(places[name] - middle))
                found.setdefault(nearest, []).append(replace(cell, source=text))
        return found


def remarks(both: Comparison) -> Iterator[str]:
    """A sentence, without its capital letter and full stop, about everything in which the notebooks should agree."""
    if not both.handed_in.is_python:
        yield "the notebook asks for another kernel than Python 3; it was graded with Python 3"
    for name, given in both.named.items():
        versions = both.versions(name)
        what = f"the {_KINDS[given.role]} `{name}`"
        may_write = given.role in ("solution", "answer")
        if not versions and not may_write:
            yield f"{what} is missing; it was put back"
        elif not any(map(both.is_written, versions)) and may_write:
            if both.work(name):
                yield f"{what} is not filled in; {_INSTEAD[given.role]}"
            elif not versions:
                yield f"{what} is missing; it counts as not written"
        if len(versions) > 1:
            yield f"{what} is there more than once; {'all that were written count' if may_write else 'one counts'}"
        if not may_write and any(_text(cell) != _text(given) for cell in versions):
            yield f"{what} was changed; it was put back"
        if any(cell.name == name and (cell.role, cell.points) != (given.role, given.points) for cell in versions):
            yield f"the points or the kind of {what} were changed; they were put back"


def _text(cell: Cell) -> str:
    """The text of a cell without what is not seen: spaces at the ends of lines, and empty lines around it."""
    return "\n".join(map(str.rstrip, cell.source.strip().splitlines()))


def _defined(cell: Cell) -> set[str]:
    return set(_DEFINITION.findall(cell.source))


def _added(cell: Cell, given: Cell | None) -> str:
    """The lines of a cell that are not in the one of the release."""
    known = {line.strip() for line in given.source.splitlines()} if given else set()
    return "\n".join(line for line in cell.source.splitlines() if line.strip() not in known).strip()
