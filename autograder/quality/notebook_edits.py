"""Edits of a case whose submission is a notebook.

`find` and `replace` work on the text of the one cell that holds it; `prepend` and `append` on the first and the last
solution in code. With `cell`, a name or id, one cell is treated as people and cheats treat cells::

    [[edit]]
    file = "words.ipynb"
    cell = "test-4b"
    delete = true            # or: duplicate = true (the copy stands after it)
                             #     source = "…"     (its new text)
                             #     after = "…"      (the text of a new cell that follows it)
                             #     outputs = '[…]'  (JSON)
                             #     metadata = '{…}' (JSON, over what is there)

`kernel` gives the notebook a kernel of this name, and of this `language` (by default Python).
"""

import copy
import json
from typing import Any

NOTEBOOK_EDITS = {"find", "prepend", "append", "cell", "kernel"}


def edit_notebook(text: str, edit: dict[str, Any]) -> str:
    """The notebook `text` after one edit; raises ValueError where the edit does not fit it."""
    notebook = json.loads(text)
    cells = notebook["cells"]
    if "kernel" in edit:
        kernel = edit["kernel"]
        language = edit.get("language", "python")
        notebook["metadata"]["kernelspec"] = {"name": kernel, "display_name": kernel, "language": language}
    elif "find" in edit:
        holding = [cell for cell in cells if edit["find"] in _text(cell)]
        count = sum(_text(cell).count(edit["find"]) for cell in holding)
        if count != 1:
            raise ValueError(f"{edit['find']!r} occurs {count} times in its cells")
        holding[0]["source"] = _text(holding[0]).replace(edit["find"], edit["replace"])
    elif "cell" in edit:
        places = [number for number, cell in enumerate(cells) if _is_called(cell, edit["cell"])]
        if not places:
            raise ValueError(f"there is no cell {edit['cell']!r}")
        _edit_cell(cells, places[0], edit)
    else:
        solutions = [cell for cell in cells if cell["cell_type"] == "code" and _about(cell).get("solution")]
        solutions[0]["source"] = edit.get("prepend", "") + _text(solutions[0])
        solutions[-1]["source"] = _text(solutions[-1]) + edit.get("append", "")
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"


def _edit_cell(cells: list[dict[str, Any]], place: int, edit: dict[str, Any]) -> None:
    cell = cells[place]
    if edit.get("delete"):
        del cells[place]
    if edit.get("duplicate"):
        cells.insert(place + 1, copy.deepcopy(cell))
    if "source" in edit:
        cell["source"] = edit["source"]
    if "outputs" in edit:
        cell["outputs"] = json.loads(edit["outputs"])
    if "metadata" in edit:
        cell["metadata"] |= json.loads(edit["metadata"])
    if "after" in edit:
        new: dict[str, Any] = {"cell_type": "code", "id": f"new-{place}", "metadata": {}, "outputs": []}
        cells.insert(place + 1, new | {"execution_count": None, "source": edit["after"]})


def _text(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def _about(cell: dict[str, Any]) -> dict[str, Any]:
    about: dict[str, Any] = cell["metadata"].get("nbgrader", {})
    return about


def _is_called(cell: dict[str, Any], name: str) -> bool:
    return name in (_about(cell).get("grade_id"), cell.get("id"))
