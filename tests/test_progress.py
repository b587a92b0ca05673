"""The progress of a command: a bar on a terminal, and a line now and then in a log file."""

from __future__ import annotations

import pytest

from ebmcourse import progress


def test_a_log_file_gets_a_line_for_each_quarter(capsys):
    with progress.progress("Grading [s]") as show:
        for done in range(101):
            show(done, 100)
    quarters = [f"Grading [s]: {done} of 100" for done in (0, 25, 50, 75, 100)]
    assert capsys.readouterr().err.splitlines() == quarters


def test_a_log_file_gets_a_line_when_the_last_one_is_old(capsys, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.progress("Grading") as show:
        for done in range(5):
            show(done, 1000)
            now += 0.4 * progress.MAX_SILENCE
    assert capsys.readouterr().err.splitlines() == ["Grading: 0 of 1000", "Grading: 3 of 1000"]


@pytest.mark.parametrize("total", [0, 1])
def test_nothing_left_to_do_is_no_error(capsys, total):
    with progress.progress("Grading") as show:
        show(total, total)
    assert capsys.readouterr().err == f"Grading: {total} of {total}\n"


@pytest.mark.parametrize("terminal", [False, True])
def test_a_mistake_that_is_found_before_the_first_item_draws_no_bar(capsys, monkeypatch, terminal):
    monkeypatch.setenv("FORCE_COLOR" if terminal else "NO_COLOR", "1")
    with pytest.raises(ValueError, match="mistake"), progress.progress("Grading"):
        raise ValueError("mistake")
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_a_bar(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress.progress("Grading") as show:
        show(1, 2)
    said = capsys.readouterr().err
    assert "Grading" in said and "1/2" in said and "━" in said and "1 of 2" not in said


def test_the_bar_of_a_second_pass_has_its_own_total(capsys, monkeypatch):
    """`autograder quality --pools` grades some cases again, one by one."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress.progress("Cases") as show:
        show(5, 5)
        show(2, 2)
    assert "2/2" in capsys.readouterr().err
