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
    assert f"{given} release free_energy" in done.output and f"{given} quality free_energy" in done.output
    wrong = run("--course", str(course), "report", "nosuch")
    assert f"run `{given} grade` first" in wrong.output
    assert "run `autograder grade` first" in run("report", "nosuch").output


def test_the_roster_adds_names_and_students_without_a_result_to_the_gradebook(tmp_path: Path) -> None:
    results = write_class(tmp_path / "results", *sample_class(1))
    roster = tmp_path / "people.csv"
    roster.write_text("id,name\ns001,Étudiant Un\ns002,Étudiante <b>Deux\n", "utf-8")
    assert run("report", str(results), "--roster", str(roster)).exit_code == 0
    page = (results / "index.html").read_text("utf-8")
    rows = page[page.index("<tbody>") : page.index("</tbody>")].split("</tr>")
    assert "s001" in rows[0] and "Étudiant Un" in rows[0]
    assert "s002" in rows[1] and "Étudiante &lt;b&gt;Deux" in rows[1] and "–" in rows[1]
    assert "Étudiant" not in (results / "jem" / "feedback" / "s001.html").read_text("utf-8")
