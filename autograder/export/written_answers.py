"""What a student wrote into the cells of a notebook, read from a file that may hold anything.

Only the text of the cells that the release gives to fill in is taken, or what stands elsewhere instead of it, and
pictures pasted into written answers. What else there is (outputs, metadata, further cells) stays behind.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from autograder.files import read_regular
from autograder.grade.repair import Comparison, remarks
from ebmcourse.checking.program import MAX_NOTEBOOK_BYTES, Cell, read_notebook

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

    An answer that stands as it was released is none. Where a cell stands several times, a person reads all its texts.
    """
    answers = WrittenAnswers()
    try:
        handed_in = read_notebook(read_regular(path, MAX_NOTEBOOK_BYTES))
    except FileNotFoundError:
        answers.remarks.append(f"There is no notebook `{path.name}`: its questions have no answers.")
        return answers
    except ValueError as reason:
        answers.remarks.append(
            f"The notebook `{path.name}` cannot be used: it is {reason}. Its questions have no answers."
        )
        return answers
    both = Comparison(read_notebook(nbformat.writes(released)), handed_in)
    for name, given in both.named.items():
        if given.role in ("solution", "answer"):
            work = both.work(name)
            texts = dict.fromkeys(cell.source[:MAX_ANSWER] for cell in work)
            if texts:
                answers.texts[name] = ("\n\n" if given.is_code else "\n\n---\n\n").join(texts)
            for cell in work:
                answers.pictures.setdefault(name, {}).update(_pictures(cell))
    answers.remarks += [f"{remark[0].upper()}{remark[1:]}." for remark in remarks(both)]
    if any(_is_active(output) for cell in handed_in.cells for output in _outputs(cell)):
        answers.remarks.append("Its outputs hold HTML or scripts that a browser would run: outputs are left out here.")
    return answers


def _pictures(cell: Cell) -> dict[str, dict[str, str]]:
    kept: dict[str, dict[str, str]] = {}
    for name, forms in cell.attachments.items() if isinstance(cell.attachments, dict) else ():
        for kind in _PICTURES:
            data = forms.get(kind) if isinstance(forms, dict) else None
            if isinstance(data, str) and _BASE64.fullmatch(data):
                kept[str(name)] = {kind: data}
    return kept


def _outputs(cell: Cell) -> list[dict[str, Any]]:
    return [output for output in cell.outputs if isinstance(output, dict)] if isinstance(cell.outputs, list) else []


def _is_active(output: dict[str, Any]) -> bool:
    """Whether an output would run something where it is shown; what it is judged by need not be complete."""
    data = output.get("data")
    forms = data if isinstance(data, dict) else {}
    texts = [text for form in forms.values() for text in (form if isinstance(form, list) else [form])]
    return "application/javascript" in forms or any(isinstance(text, str) and _ACTIVE.search(text) for text in texts)


def shortened(remarks: list[str], most: int = 12) -> list[str]:
    """The remarks without repetitions, and not more of them than one wants to read."""
    unique = list(Counter(remarks))
    return unique if len(unique) <= most else [*unique[:most], f"And {len(unique) - most} more remarks of this kind."]
