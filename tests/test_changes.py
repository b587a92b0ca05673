"""Grading again reports which marks changed, from what to what, and why."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from autograder import assignment as assignments
from autograder.changes import changes, changes_table, identical, results_before
from autograder.cli import main
from autograder.collect.ids import handed_in_together, remember_ids
from autograder.grade import submissions, workers
from autograder.release.build import build, release
from autograder.release.programs import part_points
from autograder.results import Result, write_result
from ebmcourse.checking.outcome import Outcome


def result(student: str, points: dict[str, float], **more: object) -> Result:
    checks = [Outcome(id_, "1a", "t", "passed" if got else "failed", got, 2.0, True) for id_, got in points.items()]
    values = {"submission_sha256": "s", "checks_sha256": "c", "seed": 0, "confined": True} | more
    return Result("jem", student, sum(points.values()), 2.0 * len(points), checks=checks, **values)


GRADING = "the checks, the reference, the limits or a package"
KNOWN = {"c": {"the checks in test_1.py": "1", "torch": "2.14"}, "e": {"the checks in test_1.py": "2", "torch": "2.15"}}
BEFORE = result("s001", {"a": 2.0, "b": 0.0})


@pytest.mark.parametrize(
    ("after", "reasons", "checks"),
    [
        (result("s001", {"a": 2.0, "b": 1.0}, checks_sha256="d"), [GRADING], [("b", 0, 1)]),
        (result("s001", {"a": 2.0, "b": 1.0}, checks_sha256="e"), ["the checks in test_1.py", "torch"], [("b", 0, 1)]),
        (result("s001", {"a": 0.0, "b": 0.0}, submission_sha256="t"), ["the submission"], [("a", 2, 0)]),
        (result("s001", {"a": 2.0, "c": 1.0}, checks_sha256="d"), [GRADING], [("c", None, 1), ("b", 0, None)]),
        (
            result("s001", {"a": 0.0, "b": 0.0}, seed=1, confined=False),
            ["the seed", "the use of the sandbox"],
            [("a", 2, 0)],
        ),
    ],
)
def test_a_change_has_its_reasons_and_its_checks(after, reasons, checks):
    (change,) = changes({"s001": BEFORE}, [after])
    assert (change.before.score, change.after.score) == (2, after.score)
    assert change.reasons(KNOWN) == reasons and change.checks == checks


def test_equal_marks_and_new_students_are_no_changes():
    same = replace(BEFORE, checks_sha256="d", flags=["x"])
    assert changes({"s001": BEFORE}, [same, result("s002", {"a": 0.0})]) == []
    assert len(changes({"s001": BEFORE}, [replace(same, max_score=5.0)])) == 1


def test_the_table_is_short_and_holds_no_control_characters():
    hostile = "s0[red]01\x1b[2J"
    after = result(hostile, {f"{n}/check": 1.0 for n in range(9)})
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(changes_table(changes({hostile: result(hostile, {})}, [after]), {}))
    text = console.export_text()
    assert "s0[red]01" in text and "\x1b" not in text
    assert "0/check none → 1" in text and "and 5 more" in text and "8/check" not in text


def test_damaged_and_missing_results_are_left_out(tmp_path: Path):
    write_result(tmp_path, BEFORE)
    (tmp_path / "jem" / "s002.json").write_text("{")
    assert results_before(tmp_path, "jem", ["s001", "s002", "s003"]) == {"s001": BEFORE}


def graded_by_hand(job, submitted, out, students, *, done, **_):
    """Stand-in for `grade_class`: 1b fails if the code has alpha=2, and 1a gives the points of its check."""
    worth = 4.0 if "points=4" in (job.assignment.checks / "test_1.py").read_text() else 2.0
    for student in students:
        read = submissions.read(submitted / student / "tiny", student, job.assignment)
        points = {"1a/double": worth, "1b/plus": 0.0 if "alpha=2" in read.files["tiny.py"] else 1.0}
        marks = {"submission_sha256": read.sha256, "checks_sha256": job.checks_sha256, "seed": job.seed.label}
        graded = replace(result(student, points, **marks), assignment="tiny", confined=job.confined)
        write_result(out, graded)
        done(graded)
        if "stop" in read.files["tiny.py"]:
            raise KeyboardInterrupt


def test_grade_reports_changes_even_if_it_is_interrupted(tiny_course: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(workers, "grade_class", graded_by_hand)
    source, submitted = tiny_course / "solutions" / "tiny", tmp_path / "submitted"
    for student in ("s001", "s002"):
        (submitted / student / "tiny").mkdir(parents=True)
        shutil.copy(source / "tiny.py", submitted / student / "tiny")

    def grade(*options: str, code: int = 0) -> str:
        arguments = ("grade", "tiny", str(submitted), "--out", str(tmp_path / "results"), "--seed", "1", "--unconfined")
        done = CliRunner().invoke(main, ["--course", str(tiny_course), *arguments, *options])
        assert done.exit_code == code, done.output
        return done.output

    assert "Graded again" not in grade()
    assert "Graded again" not in grade()  # nothing has changed, nothing is graded
    assert "Graded again: 2; marks that changed: 0." in grade("--force")

    text = (source / "tiny.py").read_text()
    (submitted / "s002" / "tiny" / "tiny.py").write_text(text.replace("alpha=1", "alpha=2"))
    said = grade()
    assert "Graded again: 1; marks that changed: 1." in said and "1b/plus 1 → 0" in said

    checks = source / "checks" / "test_1.py"
    checks.write_text(checks.read_text() + "\n# another comment\n")
    said = grade()
    assert "Graded again: 2; marks that changed: 0." in said and "changed marks" not in said

    checks.write_text(checks.read_text().replace("points=2", "points=4"))
    (submitted / "s001" / "tiny" / "tiny.py").write_text(text + "# stop\n")
    said = grade(code=130)
    assert "Graded again: 2; marks that changed: 1." in said and "s001" in said and "s002" not in said
    assert "the submission" in said and "the checks in test_1.py" in said and "1a/double 2 → 4" in said
    said = grade()
    assert "Graded again: 1; marks that changed: 1." in said


def test_grade_says_that_students_may_have_an_older_release(tiny_course: Path, tmp_path: Path, monkeypatch):
    tiny = assignments.load("tiny", tiny_course)
    full = [Outcome(f"{part}/x", part, "t", "passed", most, most, True) for part, most in part_points(tiny).items()]

    def graded_in_full(*arguments, done, **options):
        graded_by_hand(*arguments, done=lambda result: done(replace(result, checks=full)), **options)

    monkeypatch.setattr(workers, "grade_class", graded_in_full)
    build(tiny, tmp_path / "built")
    release(tiny, tmp_path / "built", tiny_course)
    (tmp_path / "submitted" / "s001" / "tiny").mkdir(parents=True)
    shutil.copy(tiny.folder / "tiny.py", tmp_path / "submitted" / "s001" / "tiny")
    arguments = ["grade", "tiny", str(tmp_path / "submitted"), "--out", str(tmp_path / "results"), "--seed", "1"]

    def grade() -> str:
        done = CliRunner().invoke(main, ["--course", str(tiny_course), *arguments, "--unconfined"])
        assert done.exit_code == 0, done.output
        return " ".join(done.output.split())

    assert "release" not in grade()
    checks = tiny.checks / "test_1.py"
    checks.write_text(checks.read_text().replace("This is the square.", "This is the square!"))
    assert "tiny has changed since its release, in checks/test_1.py; students may have worked with an older" in grade()
    assert "release" not in grade()  # nothing is graded again


def marked(student: str, digest: str, score: float = 1.0) -> Result:
    return Result("jem", student, score, 2.0, digest, "", 0)


def test_students_with_the_same_files_are_grouped():
    results = [marked("s004", "a"), marked("s002", "b"), marked("s001", "a"), marked("s003", "c")]
    assert identical(results) == [["s001", "s004"]]


def test_a_group_that_hands_in_together_is_not_suspected_but_a_copy_of_its_work_is(tmp_path: Path):
    for student in ("s001", "s003"):
        (tmp_path / student / "jem").mkdir(parents=True)
    remember_ids(tmp_path, "jem", "moodle", {"Team A": ["s001", "s002"], "Solo": ["s003"]})
    together = handed_in_together(tmp_path, "jem")
    assert together == [["s001", "s002"]] and handed_in_together(tmp_path, "other") == []
    assert identical([marked("s001", "a"), marked("s002", "a"), marked("s003", "b")], together) == []
    assert identical([marked(f"s00{n}", "a") for n in (1, 2, 3)], together) == [["s001", "s002", "s003"]]


def test_the_ids_of_checks_are_not_cut_on_a_narrow_terminal():
    id_ = "1a/" + "x" * 60
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(changes_table(changes({"s001": result("s001", {id_: 1.0})}, [result("s001", {id_: 2.0})]), {}))
    assert console.export_text().count("x") == 60


def test_submissions_without_points_are_not_compared():
    assert identical([marked("s001", "a", 0.0), marked("s002", "a", 0.0)]) == []
