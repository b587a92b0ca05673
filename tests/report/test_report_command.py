"""The commands `report` and `export` on wrong use: one sentence, exit code 2; printed commands can be pasted."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from report_sample import sample_class, write_class

from autograder import results
from autograder.cli import main
from autograder.collect.groups import Group, remember_groups


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


def test_who_has_handed_in_and_has_no_result_is_named_on_the_pages_and_the_terminal(tmp_path: Path) -> None:
    course, submitted = tmp_path / "course", tmp_path / "submitted"
    for name in ("jem", "later"):
        (course / "solutions" / name).mkdir(parents=True)
        text = f'title = "{name}"\nfiles = []\nparts = {{}}\nlimits = {{ seconds = 1 }}\n'
        (course / "solutions" / name / "assignment.toml").write_text(text)
    results = write_class(tmp_path / "results", *sample_class(2))
    for folder in ("s001/jem", "s002/jem", "s003/jem", "s004/later", "s005/unknown"):
        (submitted / folder).mkdir(parents=True)
    options = ["--submitted", str(submitted)]
    done = run("--course", str(course), "report", str(results), *options)
    assert done.exit_code == 0
    again = f"autograder --course {course} grade jem {submitted} --out {results}"
    assert f"Handed in jem, but not graded: s003. Run `{again}`." in done.output
    assert "Handed in later, but not graded: s004." in done.output and "s005" not in done.output
    page = (results / "index.html").read_text("utf-8")
    rows = page[page.index("<tbody>") : page.index("</tbody>")].split("</tr>")
    assert "s003" in rows[2] and "not graded" in rows[2] and "s004" in rows[3] and "not graded" not in rows[3]
    assert "<bdi>jem</bdi>: s003" in page and "<bdi>later</bdi>: s004" in page
    assert "1 student has handed in, but there is no result: s003" in (results / "jem/index.html").read_text("utf-8")

    said = run("--course", str(course), "export", str(results), "--to", "csv", *options).output
    assert "Handed in, but not graded, so not exported: s003 (jem)" in said
    (submitted / "s003" / "jem").rmdir()
    (submitted / "s004" / "later").rmdir()
    done = run("--course", str(course), "report", str(results), *options)
    assert "not graded" not in done.output + (results / "index.html").read_text("utf-8").lower()


def test_results_that_are_not_in_the_roster_are_named(tmp_path: Path) -> None:
    results = write_class(tmp_path / "results", *sample_class(2))
    roster = tmp_path / "people.csv"
    roster.write_text("id\ns001\ns003\n")
    said = run("report", str(results), "--roster", str(roster)).output
    assert f"Results of students who are not in {roster}: s002" in said
    said = run("export", str(results), "--to", "csv", "--roster", str(roster)).output
    assert "Results of students who are not in the roster: s002" in said


def text_of_class(folder: Path) -> str:
    text = re.sub("<[^>]*>", " ", (folder / "jem/index.html").read_text("utf-8"))
    return re.sub(r"\s+([,.])", r"\1", " ".join(text.split()))


def test_identical_submissions_are_on_the_page_of_the_class(tmp_path: Path) -> None:
    one = sample_class(1)[0][0]
    for student, digest in (("s001", "a"), ("s002", "a"), ("s003", "b")):
        results.write_result(tmp_path, replace(one, student=student, submission_sha256=digest * 64))
    assert run("report", str(tmp_path)).exit_code == 0
    assert "These students handed in identical files. s001, s002" in text_of_class(tmp_path)


def test_a_group_with_different_files_is_on_the_page_of_the_class_and_one_with_the_same_is_not(tmp_path: Path) -> None:
    one = sample_class(1)[0][0]
    for student, digest in (("s001", "a"), ("s002", "b"), ("s003", "c"), ("s004", "c")):
        results.write_result(tmp_path / "results", replace(one, student=student, submission_sha256=digest * 64))
    remark = "The members of the group Team A have handed in different files. Each file counts for …: s001; s002, s005."
    groups = [Group("Team A", ("s001", "s002", "s005"), remark), Group("Team B", ("s003", "s004"))]
    remember_groups(tmp_path / "submitted", "jem", groups)
    assert run("report", str(tmp_path / "results"), "--submitted", str(tmp_path / "submitted")).exit_code == 0
    text = text_of_class(tmp_path / "results")
    assert f"{remark} s001, s002" in text and "identical files." not in text


def test_each_result_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_class(tmp_path / "results", *sample_class(3))
    read: list[str] = []
    before = results.read_result
    monkeypatch.setattr(results, "read_result", lambda path: read.append(path.stem) or before(path))
    assert run("report", str(folder)).exit_code == 0
    assert read == ["s001", "s002", "s003"]


def test_pages_whose_results_are_gone_are_named_and_kept(tmp_path: Path) -> None:
    results = write_class(tmp_path / "results", *sample_class(2))
    assert "gone" not in run("report", str(results)).output
    (results / "later" / "feedback").mkdir(parents=True)
    (results / "later" / "feedback" / "s001.html").touch()
    (results / "later" / "index.html").touch()
    (results / "jem" / "s002.json").unlink()
    said = run("report", str(results)).output
    names = "jem/feedback/s002.html, later/feedback/s001.html, later/index.html"
    assert f"Pages in {results} whose results are gone: {names}. Delete them" in said
    assert (results / "jem" / "feedback" / "s002.html").exists()
