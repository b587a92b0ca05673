"""Moodle: the CSV file for Grades → Import → CSV file.

On the page after the upload, map “Username” (or “Email address”, if the roster has mail addresses) to the user, the
next column to the grade item, and the last column to its feedback. There is one file per assignment, because Moodle
reads an empty cell as “no grade”. Moodle shows feedback as HTML, so the text is escaped and its lines end in <br>.
"""

import html
import re

from autograder.export.known import Known
from autograder.export.sheets import FORMULA_CHARACTERS, Row, csv_bytes
from autograder.late import Lateness
from autograder.report.advice import what_to_fix
from autograder.results import Result
from autograder.text import number, on_one_line

# What `csv_bytes` would change. It is common in escaped text: `x <= y` has `;=`.
_FORMULA = re.compile(rf'(?<=;)[\s"]*[{FORMULA_CHARACTERS}][\s"{FORMULA_CHARACTERS}]*')


def files(results: list[Result], known: Known) -> dict[str, bytes]:
    """`<assignment>.moodle.csv`."""
    name = results[0].assignment
    mail = ["Email address"] if known.any_of("email") else []
    rows: list[Row] = [["Username", *mail, name, f"{name} (feedback)"]]
    for result in results:
        mails = [known.of(result.student, "email") for _ in mail]
        rows.append([result.student, *mails, result.score, _feedback(result, known.late.get(result.student))])
    return {f"{name}.moodle.csv": csv_bytes(rows)}


def _feedback(result: Result, late: Lateness | None) -> str:
    """Return one line of HTML: the total, then the mistakes in the order in which to fix them."""
    lines = [f"{number(result.score)} of {number(result.max_score)} points."]
    lines += late.sentences if late else []
    if result.confined is False:
        lines.append("Graded without the sandbox: this mark is provisional.")
    for entry in what_to_fix(result):
        for check in entry.checks:
            lines.append(
                f"Part {check.part}, {check.word}: {check.title}"
                f" ({number(check.points)} of {number(check.max_points)})."
                + (f" {check.explanation}" if check.explanation else "")
                + (f" Hint: {check.advice}" if check.advice else "")
            )
    text = "<br>".join(html.escape(on_one_line(line), quote=False) for line in lines)
    return _FORMULA.sub(lambda match: "".join(f"&#{ord(character)};" for character in match[0]), text)
