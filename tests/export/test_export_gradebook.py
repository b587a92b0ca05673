"""Marks in a real nbgrader gradebook, and the notebooks next to it."""

from __future__ import annotations

import json
import os
import shutil
import sysconfig
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from nbconvert.filters.strings import clean_html
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbgrader.api import Gradebook

from autograder.export import export
from autograder.export.written_answers import read_answers
from autograder.results import Result, write_result
from ebmcourse.checking.outcome import Outcome

CELLS = {"answer-3-1": "YOUR ANSWER HERE", "sketch-3-1": "# YOUR CODE HERE", "logits": "# TODO", "test-3-2a": "check()"}


def result(student: str, *points: float) -> Result:
    parts = ["3.2a", "3.2a", "2a"]
    most = [1.0, 1.0, 4.0]
    checks = [
        Outcome(f"{part}/{n}", part, "t", "passed" if got else "failed", got, top, True)
        for n, (part, got, top) in enumerate(zip(parts, points, most, strict=True))
    ]
    return Result("jem", student, sum(points), sum(most), "", "", 0, [], checks, True)


def notebook(texts: dict[str, str]) -> nbformat.NotebookNode:
    """A notebook with the cells of the release and these texts."""
    cells = []
    for name, text in texts.items():
        about = {"grade_id": name, "solution": not name.startswith("test"), "grade": name != "logits"}
        make = new_markdown_cell if name.startswith("answer") else new_code_cell
        cells.append(make(text, id=name, metadata={"nbgrader": about}))
    return new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gradebook as made by `nbgrader generate_assignment`: two tested parts, and manually graded answers."""
    path = tmp_path_factory.mktemp("database") / "gradebook.db"
    with pytest.MonkeyPatch.context() as patch:
        # nbgrader calls the alembic command when it creates a gradebook, which takes seconds.
        patch.setenv("PATH", sysconfig.get_path("scripts"), prepend=os.pathsep)
        gradebook = Gradebook(f"sqlite:///{path}")
    with gradebook:
        gradebook.add_assignment("jem")
        gradebook.add_notebook("jem", "jem")
        gradebook.add_grade_cell("test-3-2a", "jem", "jem", max_score=2, cell_type="code")
        gradebook.add_grade_cell("check_2a", "jem", "jem", max_score=8, cell_type="code")
        gradebook.add_grade_cell("answer-3-1", "jem", "jem", max_score=5, cell_type="markdown")
        gradebook.add_solution_cell("answer-3-1", "jem", "jem")
        gradebook.add_grade_cell("sketch-3-1", "jem", "jem", max_score=3, cell_type="code")
        gradebook.add_solution_cell("sketch-3-1", "jem", "jem")
        gradebook.add_solution_cell("logits", "jem", "jem")
    return path


@pytest.fixture
def course(tmp_path: Path, database: Path) -> Path:
    """A released assignment and its gradebook."""
    shutil.copy(database, tmp_path)
    released = tmp_path / "assignments" / "jem" / "jem.ipynb"
    released.parent.mkdir(parents=True)
    nbformat.write(notebook(CELLS), released)
    return tmp_path


@pytest.fixture
def gradebook(course: Path) -> Iterator[Gradebook]:
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as opened:
        yield opened


def hand_in(course: Path, student: str, **texts: str) -> Path:
    """Write a submission that answers all questions, except for the cells given in `texts`."""
    answers = {"answer-3-1": "Because.", "sketch-3-1": "plot()"} | {k.replace("_", "-"): v for k, v in texts.items()}
    path = course / "submitted" / student / "jem" / "jem.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook(CELLS | answers), path)
    return path


def put(course: Path, *results: Result) -> Path:
    for given in results:
        write_result(course / "results", given)
        hand_in(course, given.student)
    return course / "results"


def test_each_part_marks_its_cell(course: Path, gradebook: Gradebook) -> None:
    written = export(put(course, result("s001", 1, 1, 4), result("s002", 1, 0, 0)), "nbgrader", course)
    assert written == [course / "gradebook.db", *(course / "autograded" / s / "jem" for s in ("s001", "s002"))]
    # Cell check_2a has 8 points and its part has 4, so fractions are kept.
    for student, tested, checked in (("s001", 2, 8), ("s002", 1, 0)):
        grades = {
            name: gradebook.find_grade(name, "jem", "jem", student)
            for name in ("test-3-2a", "check_2a", "answer-3-1", "sketch-3-1")
        }
        assert grades["test-3-2a"].auto_score == tested and grades["check_2a"].auto_score == checked
        assert not grades["test-3-2a"].needs_manual_grade and not grades["check_2a"].needs_manual_grade
        for name in ("answer-3-1", "sketch-3-1"):
            assert grades[name].auto_score is None and grades[name].needs_manual_grade
        assert gradebook.find_submission("jem", student).score == tested + checked


def test_exporting_again_updates_marks_and_keeps_manual_ones(course: Path, gradebook: Gradebook) -> None:
    export(put(course, result("s001", 0, 0, 0)), "nbgrader", course / "gradebook.db")
    answer = gradebook.find_grade("answer-3-1", "jem", "jem", "s001")
    answer.manual_score, answer.needs_manual_grade = 4.5, False
    comment = gradebook.find_comment("answer-3-1", "jem", "jem", "s001")
    comment.manual_comment = "Well said."
    overruled = gradebook.find_grade("check_2a", "jem", "jem", "s001")
    overruled.manual_score = 7.0
    gradebook.db.commit()

    export(put(course, result("s001", 1, 1, 0)), "nbgrader", course / "gradebook.db")
    gradebook.db.expire_all()
    assert (answer.manual_score, answer.needs_manual_grade) == (4.5, False)
    assert comment.comment == "Well said."
    assert (overruled.score, overruled.auto_score, overruled.needs_manual_grade) == (7.0, 0.0, True)
    assert gradebook.find_submission("jem", "s001").score == 4.5 + 7 + 2


def test_a_missing_answer_gets_no_points_until_it_is_given(course: Path, gradebook: Gradebook) -> None:
    results = put(course, result("s001", 1, 1, 4), result("s002", 1, 1, 4))
    hand_in(course, "s001", answer_3_1=CELLS["answer-3-1"] + "\n")
    (course / "submitted/s002/jem/jem.ipynb").unlink()
    export(results, "nbgrader", course)
    for student, name in (("s001", "answer-3-1"), ("s002", "answer-3-1"), ("s002", "sketch-3-1")):
        grade = gradebook.find_grade(name, "jem", "jem", student)
        assert (grade.auto_score, grade.needs_manual_grade) == (0, False)
        assert gradebook.find_comment(name, "jem", "jem", student).comment == "No response."
    assert gradebook.find_grade("sketch-3-1", "jem", "jem", "s001").needs_manual_grade

    hand_in(course, "s001")
    export(results, "nbgrader", course)
    gradebook.db.expire_all()
    grade = gradebook.find_grade("answer-3-1", "jem", "jem", "s001")
    assert (grade.auto_score, grade.needs_manual_grade) == (None, True)
    assert gradebook.find_comment("answer-3-1", "jem", "jem", "s001").comment is None


def test_a_late_penalty_also_applies_to_manual_marks(course: Path, gradebook: Gradebook) -> None:
    results = put(course, result("s001", 1, 1, 4))
    (course / "solutions" / "jem").mkdir(parents=True)
    (course / "submitted/s001/jem/timestamp.txt").write_text("2026-12-01 12:00:00 UTC")
    rules = '[late]\npolicy = "percent"\nper_day = 25\n[assignments.jem]\ndue = 2026-12-01T11:00:00Z\n'
    (course / "course.toml").write_text(rules)
    export(results, "nbgrader", course, course=course)
    submission = gradebook.find_submission("jem", "s001")
    assert (submission.score, submission.late_submission_penalty) == (10, 2.5)
    assert submission.total_seconds_late == 3600
    gradebook.find_grade("answer-3-1", "jem", "jem", "s001").manual_score = 4
    gradebook.db.commit()
    export(results, "nbgrader", course, course=course)
    gradebook.db.expire_all()
    assert submission.late_submission_penalty == 3.5
    assert (course / "autograded/s001/jem/timestamp.txt").read_text() == "2026-12-01 12:00:00.000000 UTC"

    (course / "course.toml").unlink()
    export(results, "nbgrader", course, course=course)
    gradebook.db.expire_all()
    assert not submission.late_submission_penalty


def test_a_gradebook_that_does_not_match_is_not_changed(course: Path, gradebook: Gradebook) -> None:
    gradebook.add_grade_cell("test-9", "jem", "jem", max_score=1, cell_type="code")
    gradebook.add_grade_cell("again-2a", "jem", "jem", max_score=1, cell_type="code")
    other = replace(result("s001", 1, 1, 4))
    other.checks.append(Outcome("7/x", "7", "t", "passed", 1.0, 1.0, True))
    with pytest.raises(ValueError, match=r"test-9 does not belong to any part.*part 7 has no cell") as error:
        export(put(course, other), "nbgrader", course)
    assert "again-2a and check_2a both belong to part 2a" in str(error.value)
    assert gradebook.students == []


def test_the_error_for_missing_files_says_what_to_do(course: Path, gradebook: Gradebook) -> None:
    results = put(course, result("s001", 1, 1, 4))
    with pytest.raises(ValueError, match="generate_assignment"):
        export(results, "nbgrader", course / "other.db")
    assert not (course / "other.db").exists()
    with pytest.raises(
        ValueError, match=r"no .*elsewhere/s001/jem: name the folder of the graded submissions with --submitted"
    ):
        export(results, "nbgrader", course, submitted=course / "elsewhere")
    write_result(results, replace(result("s001", 1, 1, 4), assignment="deep"))
    (course / "submitted/s001/deep").mkdir()
    with pytest.raises(ValueError, match="generate_assignment deep"):
        export(results, "nbgrader", course)
    gradebook.add_assignment("deep")
    gradebook.add_notebook("deep", "deep")
    with pytest.raises(ValueError, match="autograder release deep"):
        export(results, "nbgrader", course)
    assert gradebook.students == []


# The notebooks for formgrader


def shown(course: Path, student: str = "s001") -> nbformat.NotebookNode:
    """The notebook in `autograded/`, which must be valid."""
    made = nbformat.read(course / "autograded" / student / "jem" / "jem.ipynb", as_version=4)
    nbformat.validate(made)
    return made


def remarks(made: nbformat.NotebookNode) -> str:
    return made.cells[0].source if made.cells[0].id == "remarks" else ""


def test_the_notebook_shows_answers_and_outcomes_of_the_checks(course: Path) -> None:
    hostile = "<script>alert(1)</script>"
    checks = [Outcome("3.2a/x", "3.2a", hostile, "failed", 0, 2, True, "hint", "`diagnosis`")]
    checks.append(Outcome("2a/y", "2a", "t", "passed", 4, 4, True))
    export(put(course, replace(result("s001", 0, 0, 4), checks=checks, score=4.0)), "nbgrader", course)
    made = shown(course)
    cells = {cell.id: cell for cell in made.cells}
    assert cells["answer-3-1"].source == "Because." and cells["sketch-3-1"].source == "plot()"
    assert cells["test-3-2a"].source == "check()"
    html = cells["test-3-2a"].outputs[0].data["text/html"]
    assert "✗ 0 / 2" in html and "<code>diagnosis</code>" in html and "<script" not in html
    assert remarks(made) == ""


def test_nbgraders_sanitizer_leaves_the_outcomes_as_they_are(course: Path) -> None:
    """Elements that it does not allow, such as `<br>`, are shown as text (`sanitize_html` in nbgrader_config.py)."""
    checks = [
        Outcome("3.2a/x", "3.2a", "One `t`", "failed", 0, 2, True, "A `hint`.", "x < 1"),
        Outcome("3.2a/z", "3.2a", "Two", "skipped", 0, 1, True, "", "Skipped until `3.2a/x` passes."),
        Outcome("2a/y", "2a", "Three", "passed", 4, 4, True, "unused"),
    ]
    export(put(course, replace(result("s001", 0, 0, 4), checks=checks, score=4.0)), "nbgrader", course)
    cells = {cell.id: cell for cell in shown(course).cells}
    html = cells["test-3-2a"].outputs[0].data["text/html"]
    assert (
        clean_html(html)
        == html
        == (
            "<ul><li><b>✗ 0 / 2</b> One <code>t</code>"
            "<ul><li>Failed. x &lt; 1</li><li><em>Hint:</em> A <code>hint</code>.</li></ul></li>"
            "<li><b>– 0 / 1</b> Two<ul><li>Not run. Skipped until <code>3.2a/x</code> passes.</li></ul></li></ul>"
        )
    )


def test_a_repaired_notebook_lists_the_repairs(course: Path) -> None:
    results = put(course, result("s001", 1, 1, 4))
    path = hand_in(course, "s001", test_3_2a="2  # full marks")
    data = json.loads(path.read_text())
    data["cells"] = [cell for cell in data["cells"] if cell["id"] != "logits"]
    twice = [cell for cell in data["cells"] if cell["id"] == "answer-3-1"] * 2
    data["cells"] += [twice[0] | {"source": ["Second", " thoughts."]}]
    script = {"output_type": "display_data", "metadata": {}, "data": {"text/html": "<script>alert(1)</script>"}}
    for cell in data["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [script]
    data["metadata"]["kernelspec"] |= {"name": "julia-1.10<script>", "language": "julia"}
    path.write_text(json.dumps(data))
    export(results, "nbgrader", course)
    made = shown(course)
    cells = {cell.id: cell for cell in made.cells}
    assert cells["answer-3-1"].source == "Because.\n\n---\n\nSecond thoughts."
    assert cells["logits"].source == "# TODO" and cells["test-3-2a"].source == "check()"
    assert "<script" not in json.dumps(made)
    assert made.metadata.kernelspec.name == "python3"
    for said in ("`logits` is missing", "`answer-3-1` is there more than once", "`test-3-2a` was changed"):
        assert said in remarks(made)
    assert "another kernel than Python 3" in remarks(made)
    assert "Its outputs hold HTML or scripts" in remarks(made)


def test_only_pictures_are_kept_from_the_attachments_of_written_answers(course: Path) -> None:
    results = put(course, result("s001", 1, 1, 4))
    path = hand_in(course, "s001", answer_3_1="![](attachment:a.png)")
    data = json.loads(path.read_text())
    picture, script = {"image/png": "aGFsbG8="}, {"image/svg+xml": "<svg onload=alert(1)>"}
    data["cells"][0]["attachments"] = {"a.png": picture, "b.svg": script, "c.png": {"image/png": '"><script>'}}
    path.write_text(json.dumps(data))
    export(results, "nbgrader", course)
    answer = next(cell for cell in shown(course).cells if cell.id == "answer-3-1")
    assert answer.attachments == {"a.png": picture} and answer.source == "![](attachment:a.png)"


def test_html_in_written_answers_is_shown_as_text_with_a_remark(course: Path) -> None:
    results = put(course, result("s001", 1, 1, 4))
    hand_in(course, "s001", answer_3_1="See <script>alert(1)</script>", sketch_3_1='print("<b>")')
    export(results, "nbgrader", course)
    cells = {cell.id: cell.source for cell in shown(course).cells}
    assert cells["answer-3-1"] == "See < script>alert(1)< /script>" and cells["sketch-3-1"] == 'print("<b>")'
    assert "`answer-3-1` are shown as text" in cells["remarks"]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "{}", '{"cells": 3}', '{"cells": [1]}', "[" * 100_000, "\x00\xff", "[]," * 9_000_000],
)
def test_a_damaged_notebook_has_no_answers_and_a_remark(tmp_path: Path, content: str) -> None:
    (tmp_path / "jem.ipynb").write_text(content, "latin-1")
    answers = read_answers(tmp_path / "jem.ipynb", notebook(CELLS))
    assert answers.texts == {} and any("no answers" in remark for remark in answers.remarks)


# The cells of a release with its own text around the answers, and what became of a notebook with one answer.
QUESTIONS = [
    ("markdown", "title", {}, "# Energies"),
    ("code", "setup", {"locked": True}, "import torch"),
    ("markdown", "cell-2", {}, "**1** What is F for large β?"),
    ("markdown", "answer-1", {"grade": True, "solution": True}, "YOUR ANSWER HERE"),
    ("code", "test-2", {"grade": True, "locked": True}, "check_part('2')"),
    ("markdown", "cell-5", {}, "**3** And for small β?"),
    ("markdown", "answer-3", {"grade": True, "solution": True}, "YOUR ANSWER HERE"),
]


def questions(**texts):
    cells = []
    for kind, name, about, source in QUESTIONS:
        make = new_markdown_cell if kind == "markdown" else new_code_cell
        metadata = {"nbgrader": {"grade_id": name, **about}} if about else {}
        cells.append(make(texts.get(name.replace("-", "_"), source), id=name, metadata=metadata))
    return new_notebook(cells=cells)


def without_names(made, keep):
    for cell in made.cells:
        name = cell.pop("id")
        cell["metadata"] = {"id": name} if keep == "metadata" else {}
        if keep == "ids":
            cell["id"] = name
    return made


def own_cell(made, place, text):
    made.cells.insert(place, new_markdown_cell(text, id="mine"))
    return made


@pytest.mark.parametrize(
    ("made", "found"),
    [
        (questions(), {}),
        (questions(answer_3="The mean."), {"answer-3": "The mean."}),
        (without_names(questions(answer_3="The mean."), "ids"), {"answer-3": "The mean."}),
        (without_names(questions(answer_3="The mean."), "metadata"), {"answer-3": "The mean."}),
        (without_names(questions(answer_1="The least."), "nothing"), {"answer-1": "The least."}),
        (without_names(questions(answer_3="The mean."), "nothing"), {"answer-3": "The mean."}),
        (
            without_names(questions(answer_1="The least.", answer_3="It."), "nothing"),
            {"answer-1": "The least.", "answer-3": "It."},
        ),
        (questions(cell_2="**1** What is F for large β?\n\nThe least."), {"answer-1": "The least."}),
        (questions(test_2="check_part('2')\n# The mean."), {"answer-1": "# The mean."}),
        (questions(answer_1="A", setup="import torch\n# The mean."), {"answer-1": "A", "answer-3": "# The mean."}),
        (own_cell(questions(), 4, "The least."), {"answer-1": "The least."}),
        (own_cell(questions(), 7, "The mean."), {"answer-3": "The mean."}),
        (own_cell(questions(answer_1="A", answer_3="B"), 4, "A note."), {"answer-1": "A", "answer-3": "B"}),
    ],
)
def test_an_answer_is_found_wherever_it_stands(tmp_path, made, found):
    (tmp_path / "jem.ipynb").write_text(json.dumps(made))
    answers = read_answers(tmp_path / "jem.ipynb", questions())
    assert answers.texts == found
    elsewhere = [remark for remark in answers.remarks if "text in other cells waits for a person" in remark]
    assert len(elsewhere) <= len(found) and not any("not written" in remark for remark in elsewhere)


def test_an_answer_without_metadata_waits_for_a_person(course: Path, gradebook: Gradebook) -> None:
    results = put(course, result("s001", 1, 1, 4))
    path = course / "submitted/s001/jem/jem.ipynb"
    path.write_text(json.dumps(without_names(notebook(CELLS | {"answer-3-1": "Because."}), "nothing")))
    export(results, "nbgrader", course)
    grade = gradebook.find_grade("answer-3-1", "jem", "jem", "s001")
    assert grade.needs_manual_grade and grade.auto_score is None
    assert next(cell for cell in shown(course).cells if cell.id == "answer-3-1").source == "Because."


def test_a_notebook_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / f"{encoding}.ipynb").write_text(nbformat.writes(notebook(CELLS)), encoding)
    plain, marked = (read_answers(tmp_path / f"{name}.ipynb", notebook(CELLS)) for name in ("utf-8", "utf-8-sig"))
    assert plain == marked


def test_a_notebook_that_is_a_link_is_not_followed(course: Path) -> None:
    results = put(course, result("s001", 1, 1, 4), result("s002", 1, 1, 4))
    hand_in(course, "s001").unlink()
    (course / "submitted/s001/jem/jem.ipynb").symlink_to(course / "submitted/s002/jem/jem.ipynb")
    export(results, "nbgrader", course)
    assert "a link or cannot be opened" in remarks(shown(course))


def test_feedback_can_be_released_for_any_time_stamp_and_secret(course: Path) -> None:
    results = put(course, *(result(f"s00{n}", 1, 1, 4) for n in (1, 2, 3)))
    for student, stamp, secret in (("s001", "2026-11-30 10:00:00 UTC", "ab" * 64), ("s002", "yesterday", "../x")):
        (course / "submitted" / student / "jem" / "timestamp.txt").write_text(stamp)
        (course / "submitted" / student / "jem" / "submission_secret.txt").write_text(secret)
    export(results, "nbgrader", course, course=course)
    folders = [course / "autograded" / f"s00{n}" / "jem" for n in (1, 2, 3)]
    stamps = [(folder / "timestamp.txt").read_text() for folder in folders]
    secrets = [(folder / "submission_secret.txt").read_text() for folder in folders]
    assert stamps == ["2026-11-30 10:00:00.000000 UTC", "", ""]
    assert secrets[0] == "ab" * 64 and all(len(secret) == 128 for secret in secrets) and len(set(secrets)) == 3
    assert "holds no time" in remarks(shown(course, "s002"))
    before = {path: path.read_bytes() for path in course.glob("autograded/**/*") if path.is_file()}
    export(results, "nbgrader", course, course=course)
    assert {path: path.read_bytes() for path in before} == before
