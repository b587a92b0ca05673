"""The cells of a notebook, run one after another in the module that they make (see `ebmcourse.checking.program`)."""

import re
from pathlib import Path
from typing import Any

from ebmcourse.checking.untrusted.selection import select
from ebmcourse.checking.untrusted.statements import IMPORTS, STAND_INS, Statement, parse

NOT_DEFINED: set[str] = set()  # names that the notebook sets and its program does not: see `selection.select`


def run_cells(namespace: dict[str, Any], cells: dict[str, str]) -> None:
    """Run files of cells in the module whose globals are `namespace`; `cells` maps each to its role.

    The roles are "given", "solution", and "own" for cells of the student's own, of which only some statements run. As
    in Jupyter, an exception ends its cell and not the notebook. Two kinds of exceptions do not even end the cell: those
    in cells of the student's own, because not all of it runs, and failed imports, because other packages may be
    installed where the notebook was written. Access to a name that the module does not have raises the exception of the
    cell that should have defined it.

    Cells are parsed here, in the process of the submission: hostile code can crash Python's parser.
    """
    folder = Path(namespace["__file__"]).parent
    texts = {name: (folder / name).read_text("utf-8") for name in cells}
    failed: dict[str, BaseException] = {}
    parsed: dict[str, list[Statement]] = {name: [] for name in cells}
    flags = 0
    for name, role in cells.items():
        try:
            for statement in parse(texts[name], str(folder / name), is_own=role == "own", flags=flags):
                parsed[name].append(statement)
                flags |= statement.flags
        except Exception as error:
            failed[name] = error
    statements = [statement for of_cell in parsed.values() for statement in of_cell]
    kept, lost = select(statements, needed_by="solutions" if "solution" in cells.values() else "definitions")
    namespace |= STAND_INS
    for name, role in cells.items():
        for statement in parsed[name]:
            if statement in kept:
                try:
                    statement.run(namespace)
                except KeyboardInterrupt:
                    raise
                except BaseException as error:  # SystemExit does not end a kernel either
                    failed.setdefault(name, error)
                    if role != "own" and not isinstance(statement.node, IMPORTS):
                        break
    for unknown in lost:
        namespace.pop(unknown, None)
    NOT_DEFINED.update(lost)

    def missing(wanted: str) -> Any:
        pattern = re.compile(rf"\b(def|class)\s+{re.escape(wanted)}\b|^{re.escape(wanted)}\s*=", re.MULTILINE)
        for name, error in failed.items():
            if pattern.search(texts[name]):
                raise error
        raise AttributeError(f"the notebook does not define {wanted!r}")

    namespace["__getattr__"] = missing
