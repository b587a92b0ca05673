"""The complete cycle of an assignment with nbgrader: release, exchange, marks, feedback."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nbgrader.apps.api import NbGraderAPI
from nbgrader.coursedir import CourseDirectory
from nbgrader_course import Course, differences
from traitlets.config import Config

from autograder import assignment as assignments
from autograder.late import parse_time
from autograder.results import Result, read_results

pytestmark = pytest.mark.slow

STUDENTS = ("s001", "s002", "s003")
FORMS = ["jem", "structured_prediction"]  # one assignment of each form: files of Python, a notebook
NAMES = FORMS + [name for name in assignments.names() if name not in FORMS]

# Commands that run the notebook or do not depend on the assignment: once for each form.
of_each_form = pytest.mark.parametrize("course", FORMS, indirect=True)


def test_every_assignment_has_the_notebook_that_nbgrader_needs() -> None:
    loaded = [assignments.load(name) for name in NAMES]
    assert all(assignment.notebook for assignment in loaded)
    assert [assignment.hands_in_notebook for assignment in loaded[: len(FORMS)]] == [False, True]


@pytest.fixture(scope="module", params=NAMES)
def course(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, needs_sandbox: None) -> Course:
    """A released assignment. s001 hands in a solution, s002 a stub and a solution one day late, s003 a stub."""
    course = Course(tmp_path_factory.mktemp(request.param), request.param)
    course.nbgrader("generate_assignment", course.name, "--force")
    course.nbgrader("release_assignment", course.name)
    for student in STUDENTS:
        course.fetch(student)
    course.solve(course.work_of("s001"))
    for student in STUDENTS:
        course.submit(student)
    course.collect()
    due = datetime.now(UTC)
    course.solve(course.work_of("s002"))
    course.submit("s002")
    course.collect("--update")
    (course.root / "course.toml").write_text(
        f'exchange = "{course.exchange}/ebmcourse/inbound"\n[late]\npolicy = "percent"\nper_day = 10\n'
        f"[assignments.{course.name}]\ndue = {due.isoformat()}\n"
    )
    course.grade()
    course.export("nbgrader")
    return course


def results_of(course: Course) -> dict[str, Result]:
    return {result.student: result for result in read_results(course.results, course.name)}


def test_students_get_the_release_byte_by_byte(course: Course) -> None:
    assert differences(course.root / "assignments" / course.name, course.released) == []
    assert differences(course.exchange / "ebmcourse" / "outbound" / course.name, course.released) == []


@of_each_form
def test_a_student_can_validate(course: Course) -> None:
    said = course.nbgrader("validate", str(course.work_of("s001") / course.notebook), student="s001")
    assert "Success! Your notebook passes all the tests." in said


@of_each_form
def test_data_and_trained_models_are_not_handed_in(course: Course) -> None:
    folder = course.work_of("s003")
    for name in ("data", "runs"):
        (folder / name).mkdir()
        (folder / name / "large.bin").write_bytes(bytes(10))
    course.submit("s003")
    last = max((course.exchange / "ebmcourse" / "inbound").glob(f"s003+{course.name}+*"))
    assert not list(last.rglob("large.bin")) and (last / course.notebook).is_file()


def test_the_last_submission_is_graded(course: Course) -> None:
    results = results_of(course)
    assert sorted(results) == list(STUDENTS)
    for student in ("s001", "s002"):
        assert results[student].score == results[student].max_score > 0, results[student]
    assert results["s003"].score == 0
    assert all(result.flags == [] and result.confined for result in results.values())


def test_autograder_collect_and_nbgrader_collect_give_the_same_files(course: Course, tmp_path: Path) -> None:
    said = course.autograder("collect", "--from", "exchange", course.name, "--out", str(tmp_path))
    assert "exchange: 3 new" in said and "s002: The submission of" in said
    for student in ("s001", "s002"):
        assert differences(course.submitted(student), tmp_path / student / course.name) == []


def test_the_gradebook_has_the_marks_of_each_cell(course: Course) -> None:
    with course.gradebook() as gradebook:
        for result in results_of(course).values():
            for part in {check.part for check in result.checks}:
                name = f"test-{part.replace('.', '-')}"
                grade = gradebook.find_grade(name, course.name, course.name, result.student)
                assert grade.auto_score == pytest.approx(sum(c.points for c in result.checks if c.part == part))
                assert not grade.needs_manual_grade
        late = gradebook.find_submission(course.name, "s002")
        assert late.late_submission_penalty == pytest.approx(0.1 * late.score)
        assert 0 < late.total_seconds_late < 24 * 3600
        assert not gradebook.find_submission(course.name, "s001").late_submission_penalty
        for name in course.written():
            assert gradebook.find_grade(name, course.name, course.name, "s001").needs_manual_grade
            untouched = gradebook.find_grade(name, course.name, course.name, "s003")
            assert (untouched.score, untouched.needs_manual_grade) == (0, False)


def test_formgrader_lists_the_submissions(course: Course) -> None:
    config = Config()
    config.CourseDirectory.root = str(course.root)
    config.CourseDirectory.course_id = "ebmcourse"
    config.Exchange.root = str(course.exchange)
    shown = {
        entry["student"]: entry for entry in NbGraderAPI(CourseDirectory(config=config)).get_submissions(course.name)
    }
    assert sorted(shown) == list(STUDENTS)
    for student, result in results_of(course).items():
        assert shown[student]["autograded"] and shown[student]["submitted"]
        assert shown[student]["code_score"] == pytest.approx(result.score)
    assert shown["s001"]["needs_manual_grade"] == bool(course.written())


@of_each_form
def test_manual_marks_are_kept_and_students_get_feedback(course: Course) -> None:
    with course.gradebook() as gradebook:
        for name in course.written()[:1]:
            grade = gradebook.find_grade(name, course.name, course.name, "s001")
            grade.manual_score, grade.needs_manual_grade = grade.max_score / 2, False
            gradebook.find_comment(name, course.name, course.name, "s001").manual_comment = "And why is it low there?"
        gradebook.db.commit()
        total = gradebook.find_submission(course.name, "s001").score
    course.grade()
    course.export("nbgrader")  # again, after manual grading
    course.nbgrader("generate_feedback", course.name)
    assert not list((course.root / "feedback").rglob("*.py"))
    course.nbgrader("release_feedback", course.name)
    course.nbgrader("fetch_feedback", course.name, f"--Exchange.root={course.exchange}", student="s001")
    (page,) = (course.work_of("s001") / "feedback").rglob("*.html")
    html = page.read_text("utf-8")
    if course.written():
        assert "And why is it low there?" in html and "Because the energy is low there." in html
    assert f"{total:g} / " in html or f"Score: {total}" in html
    assert "autograder" not in html and "HIDDEN" not in html
    course.nbgrader("fetch_feedback", course.name, f"--Exchange.root={course.exchange}", student="s002")
    pages = list((course.work_of("s002") / "feedback").rglob("*.html"))
    assert len(pages) == 1 and "Handed in 1 day late." in pages[0].read_text("utf-8")


def test_nbgraders_export_and_ours_have_the_same_marks(course: Course) -> None:
    course.nbgrader("export", "--to", "marks.csv")
    theirs = {row["student_id"]: row for row in read_csv(course.root / "marks.csv")}
    course.export("csv")
    ours = {row["student"]: row for row in read_csv(course.results / f"{course.name}.marks.csv")}
    with course.gradebook() as gradebook:
        for student in STUDENTS:
            by_hand = gradebook.find_submission(course.name, student).written_score
            assert float(theirs[student]["raw_score"]) == pytest.approx(
                results_of(course)[student].score + by_hand, abs=0.01
            )
            share = float(ours[student]["deducted"]) / max(results_of(course)[student].score, 1)
            assert float(theirs[student]["late_submission_penalty"]) == pytest.approx(
                share * float(theirs[student]["raw_score"]), abs=0.01
            )
            stamp = (course.submitted(student) / "timestamp.txt").read_text()
            assert datetime.fromisoformat(ours[student]["submitted"]) == parse_time(stamp)


@of_each_form
def test_nbgraders_own_autograding_gives_an_honest_student_the_same_marks(course: Course) -> None:
    course.nbgrader("autograde", course.name, "--student=s001", "--force")
    result = results_of(course)["s001"]
    with course.gradebook() as gradebook:
        for part in {check.part for check in result.checks}:
            grade = gradebook.find_grade(f"test-{part.replace('.', '-')}", course.name, course.name, "s001")
            assert grade.auto_score == pytest.approx(sum(c.points for c in result.checks if c.part == part))
    for path in course.assignment.scripts:  # the student's files, not those of the source folder
        assert (course.root / "autograded" / "s001" / course.name / path.name).read_bytes() == path.read_bytes()


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))
