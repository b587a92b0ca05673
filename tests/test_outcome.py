"""One word for each outcome, on every page, in every table and in every notebook."""

from __future__ import annotations

import json
from html import unescape

from rich.console import Console

from autograder.export import autograded, gradescope, moodle
from autograder.export.known import Known
from autograder.report.pages import class_page, feedback_page
from autograder.results import Result
from ebmcourse import summary
from ebmcourse.checking.notebook import Report, outdated_note
from ebmcourse.checking.outcome import NOT_IMPLEMENTED, Outcome

STUB = [
    Outcome(f"1a/{n}", "1a", f"Check {n}", "failed", 0.0, 1.0, True, "Multiply by two.", NOT_IMPLEMENTED)
    for n in (1, 2)
]
RESULT = Result("jem", "s001", 0.0, 2.0, "ab", "cd", 0, [], STUB, True)


def test_a_notebook_says_that_an_earlier_definition_was_checked() -> None:
    report = Report("1a", "Doubling", STUB, "checks", outdated_note(["double", "triple"]))
    assert "The last cell that defines `double`, `triple` stopped with an error" in repr(report)
    assert "defines <code>double</code>, <code>triple</code> stopped with an error" in report._repr_html_()
    assert outdated_note([]) == "" and "with an error" not in repr(Report("1a", "Doubling", STUB, "checks"))


def test_a_stub_is_not_implemented_yet_everywhere_and_failed_nowhere(capsys) -> None:
    report = Report("1a", "Doubling", STUB, "checks")
    summary.show(Console(), {"1a": "Doubling"}, STUB, everything=True)
    outputs = {
        "feedback": feedback_page(RESULT).partition("<main>")[2],
        "map of the class": class_page([RESULT], {}).partition("</ul>\n<table")[2],
        "notebook": repr(report),
        "notebook as HTML": report._repr_html_(),
        "formgrader": autograded._found(RESULT, "1a").data["text/html"],
        "gradescope": json.loads(gradescope.files([RESULT], Known())["jem/s001/results.json"])["tests"][0]["output"],
        "moodle": moodle.files([RESULT], Known())["jem.moodle.csv"].decode(),
        "terminal": capsys.readouterr().out,
    }
    for name, text in outputs.items():
        assert "not implemented yet" in unescape(text).lower(), name
        assert "failed" not in text.lower() and "yet. not implemented" not in text.lower(), name


def test_a_stub_has_a_sign_of_its_own_and_no_explanation_besides_the_word() -> None:
    failed = Outcome("1a/x", "1a", "Check", "failed", 0.0, 1.0, True)
    assert (STUB[0].kind, STUB[0].sign, STUB[0].explanation) == ("unwritten", "·", "")
    assert STUB[0].verdict == NOT_IMPLEMENTED and STUB[0].advice == "Multiply by two."
    assert (failed.kind, failed.sign) == ("failed", "✗")
    assert failed.verdict == "Failed. The result is not what the exercise asks for."
