"""nbgrader's folder `autograded/`: the notebooks that formgrader shows and that `generate_feedback` converts to pages.

nbgrader's own autograding executes the student's notebook. Here, nothing is executed. The notebook consists of the
released cells, the student's answers in the solution cells, and the outcomes of the checks below each tested cell.
"""

import re
import secrets
from datetime import datetime
from html import escape
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_output

from autograder.export.markdown import harmless
from autograder.export.written_answers import WrittenAnswers, grade_id, is_solution, shortened
from autograder.files import read_regular
from autograder.late.times import TIMESTAMP, stamp
from autograder.results import Result, write_atomically
from autograder.text import number, prose
from ebmcourse.checking.notebook import Report
from ebmcourse.checking.outcome import Outcome

SECRET = "submission_secret.txt"


def graded_notebook(
    released: NotebookNode, answers: WrittenAnswers, result: Result, parts: dict[str, str], notes: list[str]
) -> str:
    """Return the notebook of one student as JSON, with answers and marks.

    `parts` maps the names of tested cells to parts of the result. `notes` are sentences for the top of the notebook,
    where the remarks on it are shown too.
    """
    notebook = nbformat.from_dict(released)
    remarks = list(answers.remarks)
    for cell in notebook.cells:
        name = grade_id(cell)
        if is_solution(cell) and name in answers.texts:
            is_text = cell.cell_type == "markdown"
            text, pictures = answers.texts[name], answers.pictures.get(name, {})
            cell.source = harmless(text, pictures) if is_text else text
            if cell.source != text:
                remarks.append(f"HTML, unusual links and external pictures in `{name}` are shown as text.")
            if is_text and pictures:
                cell.attachments = pictures
        if name in parts:
            cell.outputs = [_found(result, parts[name])]
            cell.execution_count = None
    if sentences := [*notes, *shortened(remarks)]:
        text = "**Remarks**\n\n" + "\n".join(f"* {_as_markdown(sentence)}" for sentence in sentences)
        notebook.cells.insert(0, new_markdown_cell(text, id="remarks"))
    return nbformat.writes(notebook) + "\n"


def write(folder: Path, notebooks: dict[str, str], submission: Path, time: datetime | None) -> None:
    """Write `autograded/<student>/<assignment>/`: the notebooks by name, the secret and the time of submission.

    `release_feedback` uses the secret of the submission to name the student's page, and stops if a secret is missing. A
    submission that was not made through nbgrader has no secret, so a new one is generated for it.
    """
    for name, text in notebooks.items():
        write_atomically(folder / f"{name}.ipynb", text.encode("utf-8"))
    secret = _secret(submission / SECRET) or _secret(folder / SECRET) or secrets.token_hex(64)
    write_atomically(folder / SECRET, secret.encode("ascii"))
    write_atomically(folder / TIMESTAMP, (stamp(time) if time else "").encode("ascii"))


def _secret(path: Path) -> str | None:
    try:
        text = read_regular(path, 1000).decode("ascii").strip()
    except (FileNotFoundError, ValueError):
        return None
    return text if re.fullmatch("[0-9a-f]{32,256}", text) else None


def _found(result: Result, part: str) -> NotebookNode:
    """The outcomes of the checks of one part, as the output of its tested cell; all text in it is escaped.

    The HTML uses only elements that nbgrader keeps where a course has its pages sanitized. `<br>` and `<p>` are not
    among them and would appear as text.
    """
    checks = [check for check in result.checks if check.part == part]
    html = f"<ul>{''.join(map(_item, checks))}</ul>"
    return new_output("display_data", {"text/html": html, "text/plain": repr(Report(part, "", checks, "checks"))})


def _item(check: Outcome) -> str:
    """A check as an item of a list; if it did not pass, with a list of what went wrong and the hint."""
    points = f"{number(check.points)} / {number(check.max_points)}"
    details: list[str] = [prose(check.verdict)] if check.verdict else []
    details += [f"<em>Hint:</em> {prose(check.advice)}"] if check.advice else []
    nested = f"<ul>{''.join(f'<li>{line}</li>' for line in details)}</ul>" if details else ""
    return f"<li><b>{check.sign} {points}</b> {prose(check.title)}{nested}</li>"


def _as_markdown(sentence: str) -> str:
    """Return a sentence, which may contain names from a submission, as markdown that formats only `code`."""
    words = escape(re.sub(r"\s+", " ", sentence), quote=False)
    return re.sub(r"([\\*_\[\]#|~$])(?=[^`]*(?:`[^`]*`[^`]*)*$)", r"\\\1", words)
