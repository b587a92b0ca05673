"""The table for the terminal."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from report_sample import sample_class
from rich.console import Console

from autograder.report import class_table
from autograder.results import Result


def shown(results: list[Result]) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(class_table(results))
    return console.export_text()


def test_every_student_has_a_row_with_the_mark() -> None:
    results, _ = sample_class()
    text = shown(results)
    for result in results:
        row = next(line for line in text.splitlines() if f" {result.student} " in line)
        assert f"{result.score:g} / {result.max_score:g}" in row
    assert "2 flags" in text and "mean of 20" in text


@pytest.mark.parametrize(("score", "filled"), [(0, 0), (5, 5), (9.9, 9), (9.999999, 9), (10, 10)])
def test_the_bar_is_full_at_full_marks_only(score: float, filled: int) -> None:
    result = replace(sample_class(1)[0][0], score=score, max_score=10.0)
    assert shown([result]).count("█") == filled


def test_names_cannot_control_the_terminal() -> None:
    result = replace(sample_class()[0][0], student="[red]s001\x1b[2J\n", confined=False)
    text = shown([result])
    assert "[red]s001⟨U+001B⟩[2J" in text and "\x1b" not in text and "no sandbox" in text


def test_no_results_give_an_empty_table() -> None:
    assert class_table([]).row_count == 0
