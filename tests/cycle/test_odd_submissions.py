"""Unusual submissions pass through the cycle with a mark and a clear remark."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbgrader_course import Course

from autograder import assignment as assignments
from autograder.release.build import build
from autograder.results import read_results

pytestmark = pytest.mark.slow

# The notebook of an assignment with a program in Python files, as in jem. It contains the written answers.
QUESTIONS = """\
# %% nbgrader={"grade_id": "setup", "locked": true}
from ebmcourse.checking.notebook import check_part

# %% nbgrader={"grade_id": "test-1a", "grade": true, "locked": true}
check_part("1a")

# %% nbgrader={"grade_id": "test-1b", "grade": true, "locked": true}
check_part("1b")

# %% [markdown] nbgrader={"grade_id": "answer-1c", "grade": true, "solution": true, "points": 4}
# The model answer.
"""
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)><iframe srcdoc='<script>alert(3)</script>'></iframe>"

Notebook = dict[str, Any]


def cell_of(notebook: Notebook, name: str) -> dict[str, Any]:
    return next(cell for cell in notebook["cells"] if cell["metadata"].get("nbgrader", {}).get("grade_id") == name)


def delete_test(notebook: Notebook) -> None:
    notebook["cells"].remove(cell_of(notebook, "test-1a"))


def copy_test(notebook: Notebook) -> None:
    notebook["cells"].append(json.loads(json.dumps(cell_of(notebook, "test-1a"))))


def show_hostile_output(notebook: Notebook) -> None:
    output = {"output_type": "display_data", "metadata": {}, "data": {"text/html": HOSTILE, "text/plain": HOSTILE}}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = [output]
        elif cell["metadata"].get("nbgrader", {}).get("solution"):
            cell["source"] = f"I **think** so. {HOSTILE} [link](javascript:alert(4)) ![none](attachment:none.png)"
    notebook["cells"].append({"cell_type": "markdown", "id": "mine", "metadata": {}, "source": HOSTILE})


def name_another_kernel(notebook: Notebook) -> None:
    notebook["metadata"]["kernelspec"] = {"name": "julia-1.10", "display_name": "Julia", "language": "julia"}


def edit_test(notebook: Notebook) -> None:
    cell_of(notebook, "test-1b").update(source="1000")
    cell_of(notebook, "test-1b")["metadata"]["nbgrader"]["points"] = 1000


# How each student changes the complete solution, and a pattern of the expected remark.
EDITS: dict[str, tuple[Callable[[Notebook], None], str]] = {
    "s001": (delete_test, r"test-1a`? is missing"),
    "s002": (copy_test, r"test-1a`? is there more than once"),
    "s003": (show_hostile_output, "outputs hold HTML or scripts"),
    "s004": (name_another_kernel, "another kernel"),
    "s005": (edit_test, r"test-1b`? was changed"),
}


@pytest.fixture(params=["files", "notebook"])
def course(request: pytest.FixtureRequest, tmp_path: Path, needs_sandbox: None) -> Course:
    """A released assignment with the unusual submissions; the program is in Python files or in the notebook."""
    if request.param == "notebook":
        origin, name = request.getfixturevalue("note_course"), "note"
    else:
        origin, name = request.getfixturevalue("tiny_course"), "work"
        (origin / "solutions" / "tiny").rename(origin / "solutions" / "work")
        (origin / "solutions" / "work" / "work.py").write_text(QUESTIONS)
    build(assignments.load(name, origin), origin / "assignments" / name)
    course = Course(tmp_path / "here", name, origin)
    course.nbgrader("generate_assignment", name, "--force")
    for student, (edit, _) in EDITS.items():
        folder = hand_in_all(course, student)
        notebook = json.loads((folder / course.notebook).read_text())
        edit(notebook)
        (folder / course.notebook).write_text(json.dumps(notebook))
    (hand_in_all(course, "s006") / course.notebook).unlink()
    (hand_in_all(course, "s007") / course.notebook).write_text('{"cells": [')
    return course


def hand_in_all(course: Course, student: str) -> Path:
    folder = course.submitted(student)
    shutil.copytree(course.released, folder)
    course.solve(folder)
    return folder


def test_each_submission_gets_a_mark_a_remark_and_safe_feedback(course: Course) -> None:
    course.grade()
    said = course.export("nbgrader")
    assert "s007" in said
    course.nbgrader("generate_feedback", course.name)
    results = {result.student: result for result in read_results(course.results, course.name)}
    pages = {who: (course.root / "feedback" / who / course.name / f"{course.name}.html").read_text() for who in results}
    assert sorted(results) == [f"s00{n}" for n in range(1, 8)]

    for student, (_, remark) in EDITS.items():
        assert results[student].score == results[student].max_score == 3, student
        made = nbformat.read(course.root / "autograded" / student / course.name / course.notebook, 4)
        nbformat.validate(made)
        remarks = made.cells[0].source.replace("\\", "") if made.cells[0].id == "remarks" else ""
        assert re.search(remark, remarks), (student, remarks)
        assert re.search(remark, re.sub(r"</?code>", "`", pages[student])), student
        assert made.metadata.kernelspec.name == "python3"

    for student, page in pages.items():  # HTML of students is shown as text
        assert not re.search(r"<script>\s*alert|<img[^>]*onerror|<iframe|href=.javascript:", page), student
        assert not re.search("&lt;/?(br|p|ul|li|b|em|code)&gt;", page), student  # and our own is not
    if course.written():
        assert "<strong>think</strong>" in pages["s003"]

    in_files = bool(course.assignment.scripts)
    for student, why in (("s006", "There is no notebook"), ("s007", "no notebook that can be read")):
        assert results[student].score == (3 if in_files else 0)
        assert why in pages[student]
        if not in_files:
            assert re.search("is missing|cannot be used", results[student].checks[0].diagnosis or "")
    with course.gradebook() as gradebook:
        for student, result in results.items():
            assert gradebook.find_submission(course.name, student).score == result.score
        for name in course.written():
            assert gradebook.find_grade(name, course.name, course.name, "s003").needs_manual_grade
            assert not gradebook.find_grade(name, course.name, course.name, "s006").needs_manual_grade
