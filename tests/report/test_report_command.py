"""The commands `report` and `export` on wrong use: one sentence, exit code 2; printed commands can be pasted."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from report_sample import sample_class, write_class

from autograder.cli import main


def run(*arguments: str):
    return CliRunner().invoke(main, [*arguments])


@pytest.mark.parametrize("command", [["report"], ["export", "--to", "csv"]])
def test_folders_that_do_not_exist_are_named(tmp_path: Path, command: list[str]) -> None:
    results = str(write_class(tmp_path / "results", *sample_class(1)))
    for options, missing in (
        (["--course", "/nosuch", *command, results], "/nosuch: --course"),
        ([*command, results, "--submitted", "nosuch"], "nosuch: --submitted"),
        ([*command, "nosuch"], "There are no results in nosuch"),
    ):
        wrong = run(*options)
        assert wrong.exit_code == 2 and missing in wrong.output
        assert wrong.output.startswith("Error: ") and wrong.output.count("\n") == 1


def test_printed_commands_name_the_course_if_it_was_given(tmp_path: Path) -> None:
    course = tmp_path / "my course"
    course.mkdir()
    done = run("--course", str(course), "new", "free_energy")
    given = f"autograder --course '{course}'"
    assert f"{given} release free_energy && {given} quality free_energy" in done.output
    wrong = run("--course", str(course), "report", "nosuch")
    assert f"run `{given} grade` first" in wrong.output
    assert "run `autograder grade` first" in run("report", "nosuch").output
