"""Titles from the course, and links back to the exercises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from report_sample import sample_class

from autograder.report import write_report
from autograder.report.pages import feedback_page
from autograder.report.sheet import Sheet, read_sheet
from autograder.results import write_result


def test_the_sheet_names_the_file_of_each_exercise(tiny_course: Path) -> None:
    sheet = read_sheet("tiny", tiny_course, "https://example.org/course/")
    assert sheet == Sheet(
        "A tiny assignment",
        {"1a": "Doubling", "1b": "Adding"},
        {"1a": "tiny.py", "1b": "tiny.py"},
        "https://example.org/course/tiny/",
    )


def test_results_of_a_missing_assignment_have_an_empty_sheet(tiny_course: Path) -> None:
    assert read_sheet("gone", tiny_course) == Sheet()
    assert read_sheet('"><b>', tiny_course, "https://example.org").url == "https://example.org/%22%3E%3Cb%3E/"


def test_feedback_names_exercises_and_links_to_them() -> None:
    result = sample_class(1)[0][0]
    sheet = Sheet("A title", {"3.2a": "Logits & co."}, {"3.2a": "ex model.py"}, "https://example.org/jem/")
    page = feedback_page(result, sheet=sheet)
    assert "A title" in page and "Logits &amp; co." in page
    assert '<a href="https://example.org/jem/">Back to the exercise</a>' in page
    assert '<a href="https://example.org/jem/ex%20model.py">' in page
    assert "https:" not in feedback_page(result, sheet=replace(sheet, url=""))


@pytest.mark.parametrize("address", ["javascript:alert(1)", "example.org", "https://example.org/a b"])
def test_an_invalid_web_address_is_refused(tmp_path: Path, address: str) -> None:
    write_result(tmp_path, sample_class(1)[0][0])
    with pytest.raises(ValueError, match="not a web address"):
        write_report(tmp_path, exercises=address)
