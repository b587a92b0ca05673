"""What a student wrote into the cells of a notebook, read from a file that may hold anything.

Only the text of the cells that the release gives to fill in is taken, and pictures pasted into written answers. What
else there is (outputs, metadata, further cells) stays behind; what was changed that should not have been is said.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from autograder.files import read_regular

MAX_BYTES = 32 * 2**20
MAX_ANSWER = 200_000  # characters
_PICTURES = ("image/png", "image/jpeg", "image/gif")
_ACTIVE = re.compile(r"<script|<iframe|<object|<embed|\bon\w+ *=|javascript:", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")


@dataclass
class WrittenAnswers:
    """The written cells of one notebook by `grade_id`, and sentences on what was wrong with the notebook."""

    texts: dict[str, str] = field(default_factory=dict)
    pictures: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)  # attachments of markdown cells
    remarks: list[str] = field(default_factory=list)


def grade_id(cell: NotebookNode) -> str:
    """nbgrader's name of a cell; empty where it has none."""
    return str(cell.metadata.get("nbgrader", {}).get("grade_id", ""))


def is_solution(cell: NotebookNode) -> bool:
    """Whether students fill the cell in."""
    return bool(cell.metadata.get("nbgrader", {}).get("solution"))


def read_answers(path: Path, released: NotebookNode) -> WrittenAnswers:
    """The answers in the notebook at `path`, which was made from `released`; never raises for what a student did.

    An answer that stands as it was released is none. Where a cell stands several times, a person reads all its texts;
    of code, the last one counts.
    """
    answers = WrittenAnswers()
    try:
        notebook = _load(path)
        cells = [cell for cell in notebook["cells"] if isinstance(cell, dict)]
    except FileNotFoundError:
        answers.remarks.append(f"There is no notebook `{path.name}`: its questions have no answers.")
        return answers
    except (ValueError, RecursionError):
        answers.remarks.append(f"The notebook `{path.name}` is damaged or no notebook: its questions have no answers.")
        return answers
    found: dict[str, list[dict[str, Any]]] = {}
    for name, cell in _named(cells):
        found.setdefault(name, []).append(cell)
    for cell in released.cells:
        name = grade_id(cell)
        if not name:
            continue
        copies = found.get(name, [])
        answers.remarks += _remarks(cell, copies)
        if is_solution(cell):
            texts = dict.fromkeys(_text(copy) for copy in copies)
            written = [text[:MAX_ANSWER] for text in texts if text.strip() and text.strip() != cell.source.strip()]
            if written:
                answers.texts[name] = "\n\n---\n\n".join(written if cell.cell_type == "markdown" else written[-1:])
            for copy in copies:
                answers.pictures.setdefault(name, {}).update(_pictures(copy))
    answers.remarks += _kernel_remark(notebook, released)
    if any(_is_active(output) for cell in cells for output in _outputs(cell)):
        answers.remarks.append("Its outputs hold HTML or scripts that a browser would run: outputs are left out here.")
    return answers


def _load(path: Path) -> dict[str, Any]:
    notebook = json.loads(read_regular(path, MAX_BYTES).decode("utf-8-sig"))
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ValueError("no notebook")
    return notebook


def _named(cells: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for cell in cells:
        metadata = cell.get("metadata")
        about = metadata.get("nbgrader") if isinstance(metadata, dict) else None
        name = about.get("grade_id") if isinstance(about, dict) else None
        if isinstance(name, str):
            yield name, cell


def _text(cell: dict[str, Any]) -> str:
    """The source of a cell: text, or a list of lines."""
    source = cell.get("source")
    lines = source if isinstance(source, list) else [source]
    return "".join(line for line in lines if isinstance(line, str)).encode("utf-8", "replace").decode("utf-8")


def _pictures(cell: dict[str, Any]) -> dict[str, dict[str, str]]:
    attachments = cell.get("attachments")
    kept: dict[str, dict[str, str]] = {}
    for name, forms in attachments.items() if isinstance(attachments, dict) else ():
        for kind in _PICTURES:
            data = forms.get(kind) if isinstance(forms, dict) else None
            if isinstance(data, str) and _BASE64.fullmatch(data):
                kept[str(name)] = {kind: data}
    return kept


def _outputs(cell: dict[str, Any]) -> list[dict[str, Any]]:
    outputs = cell.get("outputs")
    return [output for output in outputs if isinstance(output, dict)] if isinstance(outputs, list) else []


def _is_active(output: dict[str, Any]) -> bool:
    """Whether an output would run something where it is shown; what it is judged by need not be complete."""
    data = output.get("data")
    forms = {kind: _text({"source": content}) for kind, content in data.items()} if isinstance(data, dict) else {}
    return "application/javascript" in forms or any(_ACTIVE.search(text) for text in forms.values())


def _remarks(cell: NotebookNode, copies: list[dict[str, Any]]) -> Iterator[str]:
    name = grade_id(cell)
    if not copies:
        yield f"The cell `{name}` was missing and has been put back."
    elif len(copies) > 1:
        which = "all are shown" if cell.cell_type == "markdown" else "the last that was written counts"
        yield f"The cell `{name}` stands {len(copies)} times; {which if is_solution(cell) else 'one counts'}."
    if not is_solution(cell) and any(_text(copy).strip() != cell.source.strip() for copy in copies):
        yield f"The cell `{name}` is not to be changed, and was: the original has been put back."


def _kernel_remark(notebook: dict[str, Any], released: NotebookNode) -> Iterator[str]:
    wanted = released.metadata.get("kernelspec", {}).get("name")
    metadata = notebook.get("metadata")
    kernel = metadata.get("kernelspec") if isinstance(metadata, dict) else None
    name = kernel.get("name") if isinstance(kernel, dict) else None
    if wanted and name != wanted:
        shown = f"`{re.sub('[^A-Za-z0-9_.+ -]', '?', name)[:40]}`" if isinstance(name, str) else "none"
        yield f"The notebook names another kernel ({shown}): choose Kernel → Change Kernel → Python 3."


def shortened(remarks: list[str], most: int = 12) -> list[str]:
    """The remarks without repetitions, and not more of them than one wants to read."""
    unique = list(Counter(remarks))
    return unique if len(unique) <= most else [*unique[:most], f"And {len(unique) - most} more remarks of this kind."]
