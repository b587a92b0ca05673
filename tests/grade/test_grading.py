"""Grading a class: marks, resuming, and what a user may do wrong."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from autograder import assignment as assignments
from autograder.cli import main as autograder
from autograder.grade import grader as grader_module
from autograder.grade.grader import KILLED, MAX_KILLED, Grader, merged_flags
from autograder.grade.job import Job
from autograder.grade.seed import given, secret
from autograder.grade.submissions import read
from ebmcourse.checking.judge import BrokenChecks

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("needs_sandbox")]

RIGHT = "def double(x):\n    return 2 * x\n\n\ndef plus(x, y):\n    return x + y\n"


@pytest.fixture
def submitted(tmp_path: Path) -> Path:
    """Five submissions: right, wrong in one part, a syntax error, nothing, and one that ends the process."""
    sources = {
        "s001": RIGHT,
        "s002": RIGHT.replace("2 * x", "x * x"),
        "s003": "def double(x)\n",
        "s005": "import os\nos._exit(0)\n",
    }
    for student, source in sources.items():
        (tmp_path / "submitted" / student / "tiny").mkdir(parents=True)
        (tmp_path / "submitted" / student / "tiny" / "tiny.py").write_text(source)
    (tmp_path / "submitted" / "s004" / "tiny").mkdir(parents=True)
    return tmp_path / "submitted"


def grade(course: Path, *arguments: object) -> Result:
    words = ["--course", str(course), "grade", "--workers", "1", *map(str, arguments)]  # unless they say otherwise
    return CliRunner().invoke(autograder, words, catch_exceptions=False)


def results(folder: Path) -> dict[str, dict]:
    paths = [path for path in (folder / "tiny").glob("*.json") if not path.stem.endswith(".timings")]
    return {path.stem: json.loads(path.read_bytes()) for path in paths}


def contents(folder: Path) -> dict[str, bytes]:
    paths = [path for path in (folder / "tiny").glob("*.json") if not path.stem.endswith(".timings")]
    return {path.name: path.read_bytes() for path in paths}


def test_a_folder_that_cannot_be_a_student_stops_nobody_else(tiny_course, submitted, tmp_path):
    for student in ("s002", "s003", "s005"):
        (submitted / student).rename(tmp_path / student)
    (tmp_path / "s002").rename(submitted / "s002.timings")
    graded = grade(tiny_course, "tiny", submitted, "--out", tmp_path / "out", "--seed", 3)
    assert graded.exit_code == 1 and "cannot be ids: s002.timings." in graded.output
    assert sorted(results(tmp_path / "out")) == ["s001", "s004"]


def test_results_without_a_submission_are_named(tiny_course, submitted, tmp_path):
    for student in ("s002", "s003", "s005"):
        (submitted / student).rename(tmp_path / student)
    arguments = ("tiny", submitted, "--out", tmp_path / "out", "--seed", 3, "--unconfined")
    assert "without a submission" not in grade(tiny_course, *arguments).output
    (submitted / "s004").rename(tmp_path / "s004")
    for options in ([], ["--student", "s001"]):
        graded = " ".join(grade(tiny_course, *arguments, *options).output.split())
        assert "Results without a submission, which are still reported and exported: s004." in graded


def test_a_class_is_graded_alike_by_any_number_of_workers(tiny_course, submitted, tmp_path):
    one = grade(tiny_course, "tiny", submitted, "--out", tmp_path / "one", "--seed", 3)
    two = grade(tiny_course, "tiny", submitted, "--out", tmp_path / "two", "--seed", 3, "--workers", 2)
    assert one.exit_code == two.exit_code == 0, one.output + two.output
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    found = results(tmp_path / "one")
    assert {student: result["score"] for student, result in found.items()} == {
        "s001": 3.0,
        "s002": 1.0,
        "s003": 0.0,
        "s004": 0.0,
        "s005": 0.0,
    }
    assert found["s002"]["checks"][0]["diagnosis"] == "This is the square."
    assert "is not valid Python: expected ':' in tiny.py, line 1" in found["s003"]["checks"][0]["diagnosis"]
    assert "`tiny.py` is missing" in found["s004"]["checks"][0]["diagnosis"]
    hints = {student: {check["hint"] for check in found[student]["checks"]} for student in ("s002", "s003", "s004")}
    assert hints["s003"] == hints["s004"] == {""} and "" not in hints["s002"]
    assert any("ended from inside" in flag for flag in found["s005"]["flags"])
    assert not found["s001"]["flags"]


def test_grading_again_does_only_what_is_new(tiny_course, submitted, tmp_path):
    out = tmp_path / "out"
    assert grade(tiny_course, "tiny", submitted, "--out", out, "--seed", 0, "--student", "s001").exit_code == 0
    first = (out / "tiny" / "s001.json").stat().st_mtime_ns
    (out / "tiny" / "s002.json").write_text("half a resul")
    assert grade(tiny_course, "tiny", submitted, "--out", out, "--seed", 0).exit_code == 0
    assert (out / "tiny" / "s001.json").stat().st_mtime_ns == first
    assert results(out)["s002"]["score"] == 1.0
    (submitted / "s002" / "tiny" / "tiny.py").write_text(RIGHT)
    assert grade(tiny_course, "tiny", submitted, "--out", out, "--seed", 0).exit_code == 0
    assert results(out)["s002"]["score"] == 3.0
    assert (out / "tiny" / "s001.json").stat().st_mtime_ns == first


def test_without_a_sandbox_grading_is_refused(tiny_course, submitted, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    result = grade(tiny_course, "tiny", submitted, "--out", tmp_path / "out", "--seed", 0)
    assert result.exit_code == 1 and "bubblewrap is not installed" in result.output
    assert not (tmp_path / "out").exists()


def test_unconfined_grading_marks_every_result(tiny_course, submitted, tmp_path):
    out = tmp_path / "out"
    words = ("tiny", submitted, "--out", out, "--seed", 0, "--student", "s001", "--unconfined")
    assert grade(tiny_course, *words).exit_code == 0
    assert results(out)["s001"]["confined"] is False and results(out)["s001"]["score"] == 3.0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nothing", "SUBMITTED"), "no assignment 'nothing'"),
        (("tiny", "NOWHERE"), "There is no folder"),
        (("tiny", "EMPTY"), "No submissions"),
        (("tiny", "SUBMITTED", "--student", "s999"), "There is no folder"),
        (("tiny", "SUBMITTED", "--workers", "0"), "--workers"),
    ],
)
def test_wrong_use_ends_in_one_sentence(tiny_course, submitted, tmp_path, arguments, sentence):
    (tmp_path / "empty").mkdir()
    places = {"SUBMITTED": submitted, "NOWHERE": tmp_path / "nowhere", "EMPTY": tmp_path / "empty"}
    words = [places.get(word, word) for word in arguments]
    result = grade(tiny_course, *words, "--out", tmp_path / "out", "--seed", 0)
    assert result.exit_code == 2 and sentence in result.output and "Traceback" not in result.output


def test_a_results_folder_that_cannot_be_written(tiny_course, submitted, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    result = grade(tiny_course, "tiny", submitted, "--out", tmp_path / "file", "--seed", 0)
    assert result.exit_code == 2 and str(tmp_path / "file") in result.output and "Traceback" not in result.output


def test_the_secret_seed_is_made_once_and_readable_by_its_owner_only(tmp_path, monkeypatch):
    monkeypatch.setenv("EBM_COURSE_SEED_FILE", str(tmp_path / "deep" / "seed"))
    first = secret()
    assert secret() == first and len(first.value) == 64
    assert os.stat(tmp_path / "deep" / "seed").st_mode & 0o077 == 0
    assert str(first.label) != first.value


def test_flags_that_say_the_same_are_made_one():
    flags = ["1a/x: it ended", "1a/y: it ended", "1b/x: it: lied", "1b/y: it ended"]
    assert merged_flags(flags) == ["1a/x and 2 more: it ended", "1b/x: it: lied"]


@pytest.mark.parametrize("times", [2, 3])
def test_a_submission_whose_process_was_killed_is_graded_again(tiny_course, submitted, monkeypatch, times):
    tiny = assignments.load("tiny", tiny_course)
    submission = read(submitted / "s002" / "tiny", "s002", tiny)
    grader = Grader(Job.of(tiny, given(0), confined=False))
    expected, _ = grader.grade(submission)
    kills = iter([True] * times + [False])
    monkeypatch.setattr(grader_module, "was_killed", lambda process: next(kills))
    result, _ = grader.grade(submission)
    grader.close()
    assert result.flags == ([KILLED] if times == MAX_KILLED else [])
    assert replace(result, flags=[]) == expected


def children() -> list[str]:
    """The numbers of the processes that this one has started."""
    return [number for path in Path("/proc/self/task").glob("*/children") for number in path.read_text().split()]


def test_checks_that_cannot_be_loaded_leave_no_sandbox_behind(tiny_course):
    (tiny_course / "solutions" / "tiny" / "checks" / "test_1.py").write_text("import a_module_of_nobody\n")
    tiny = assignments.load("tiny", tiny_course)
    before = children()
    with pytest.raises(BrokenChecks, match="a_module_of_nobody"):
        Grader(Job.of(tiny, given(0), confined=True))
    assert children() == before
