"""Drawings: the result of a student's function on a public example, next to that of the reference."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from report_sample import sample_class

from autograder import assignment
from autograder.drawings import Drawn, Picture, drawings_path, read_drawings, write_drawings
from autograder.grade import seed
from autograder.grade.draw import draw
from autograder.grade.job import Job
from autograder.grade.workers import grade_class
from autograder.release.programs import reference_program
from autograder.report.pages import feedback_page, write_report
from ebmcourse.checking.judge import Judge
from ebmcourse.checking.observation import decode, encode
from ebmcourse.checking.observer import NoObservation
from ebmcourse.checking.program import laid_out
from ebmcourse.checking.reference import PUBLIC_SEED, LiveReference

DRAWING = """

@drawing("1a", "Twice `x` (dark is small).")
def doubled_table(run):
    table = torch.arange(6.0).reshape(2, 3)
    got, want = run(doubled, table)
    return [Panel("Yours", table, got[:, :2]), Panel("Right", want)]
"""
RIGHT = "def double(x): return 2 * x\n"


@pytest.fixture
def course(tiny_course: Path) -> Path:
    """The tiny course with a drawing of what `double` returns, as a path and as a picture."""
    checks = tiny_course / "solutions/tiny/checks/test_1.py"
    text = checks.read_text("utf-8").replace(
        "import assert_close, exercise", "import Panel, assert_close, drawing, exercise"
    )
    checks.write_text(text.replace("\n\n### BEGIN HIDDEN", f"{DRAWING}\n\n### BEGIN HIDDEN", 1), "utf-8")
    return tiny_course


def drawn(course: Path, observe: Callable[[Any], Any] | None, seed: str = PUBLIC_SEED) -> Drawn | None:
    """The drawing of a submission that returns `observe(table)`, encoded as by the sandbox."""
    folder = course / "solutions/tiny"
    reference = LiveReference(seed, folder)
    (drawing,) = Judge(folder / "checks", reference).drawings
    observer = Mock(observe=lambda call: decode(encode(observe(*call.inputs)))) if observe else None
    return draw(drawing, observer, reference)


def pixels(picture: Picture) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.png))))


def test_the_students_value_is_drawn_next_to_the_references(course: Path) -> None:
    found = drawn(course, lambda table: table + 1)
    assert found and (found.part, found.caption) == ("1a", "Twice `x` (dark is small).")
    yours, right = found.panels
    assert pixels(yours).tolist() == [[0, 51, 102], [153, 204, 255]] == pixels(right).tolist()
    # Points (row, column) = (1, 2), (4, 5) of a 2 × 3 picture, as (x, y) of the centres, kept inside.
    assert (yours.title, yours.width, yours.height, yours.path) == ("Yours", 3, 2, [[2.5, 1.5], [3.0, 2.0]])
    assert (right.title, right.path) == ("Right", [])


@pytest.mark.parametrize(
    "value",
    [
        None,
        torch.full((2, 3), torch.nan),
        torch.zeros(10**6, 2),
        torch.zeros(2, 3, 4),
        [["<script>"] * 2] * 2,
        NoObservation("failed", "Not implemented yet."),
    ],
    ids=["nothing", "nan", "long", "axes", "text", "stub"],
)
def test_what_cannot_be_drawn_is_left_out(course: Path, value: Any) -> None:
    def observe(table: Any) -> Any:
        if isinstance(value, NoObservation):
            raise value
        return value

    assert drawn(course, observe) is None


def test_a_secret_seed_is_refused(course: Path) -> None:
    with pytest.raises(ValueError, match="public"):
        drawn(course, None, seed="secret")


def test_a_mistake_of_the_author_is_raised(course: Path) -> None:
    checks = course / "solutions/tiny/checks/test_1.py"
    checks.write_text(checks.read_text("utf-8").replace("got[:, :2]", "got[:, :3]"), "utf-8")
    with pytest.raises(ValueError, match="no path"):
        drawn(course, None)


def test_the_references_of_all_assignments_can_be_drawn() -> None:
    for about in map(assignment.load, assignment.names()):
        with laid_out(reference_program(about)) as folder:
            live = LiveReference(PUBLIC_SEED, folder)
            for drawing in Judge(about.checks, live).drawings:
                found = draw(drawing, None, live)
                assert found and found.panels and found.part in about.parts


def test_drawings_can_be_written_and_read(tmp_path: Path) -> None:
    kept = [Drawn("1a", "é", [Picture("Yours", 1, 1, "AAAA", [[0.5, 0.5]])])]
    write_drawings(tmp_path, "tiny", "s001", kept)
    assert read_drawings(tmp_path, "tiny", "s001") == kept
    write_drawings(tmp_path, "tiny", "s001", [])
    assert read_drawings(tmp_path, "tiny", "s001") == [] and not drawings_path(tmp_path, "tiny", "s001").exists()


@pytest.mark.parametrize(
    "content", ["", "[{}]", "7", '[{"part": "1a", "caption": "", "panels": [{"png": "<"}]}]'], ids=len
)
def test_the_error_for_a_damaged_file_says_what_to_do(tmp_path: Path, content: str) -> None:
    path = drawings_path(tmp_path, "tiny", "s001")
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ValueError, match=r"s001\.json.*grade again"):
        read_drawings(tmp_path, "tiny", "s001")


def test_the_page_draws_the_path_over_the_picture() -> None:
    picture = Picture("<b>Yours</b>", 2, 1, "AAAA", [[0.5, 0.5], [1.5, 0.5]])
    page = feedback_page(sample_class(1)[0][0], drawings=[Drawn("4b", "Your `path`.", [picture])])
    assert '<image href="data:image/png;base64,AAAA" width="2" height="1"/>' in page
    assert page.count('points="0.5,0.5 1.5,0.5"') == 2
    assert "&lt;b&gt;Yours&lt;/b&gt;" in page and "Your <code>path</code>." in page


@pytest.mark.slow
def test_grading_again_gives_the_same_drawings_and_marks(needs_sandbox: None, course: Path, tmp_path: Path) -> None:
    submitted = tmp_path / "submitted/s001/tiny"
    submitted.mkdir(parents=True)
    (submitted / "tiny.py").write_text(f"{RIGHT}def plus(x, y): return x + y\n")
    about = assignment.load("tiny", course)
    kept = []
    for out in (tmp_path / "one", tmp_path / "two"):
        job = Job.of(about, seed.given(0), confined=True)
        grade_class(job, tmp_path / "submitted", out, ["s001"], workers=1)
        kept.append(drawings_path(out, "tiny", "s001").read_bytes())
        assert [path.name for path in write_report(out, course=course)] == ["s001.html", "index.html", "index.html"]
        page = (out / "tiny/feedback/s001.html").read_text("utf-8")
        assert "What your program does" in page and "<strong>3</strong> of 3" in page
    assert kept[0] == kept[1] and os.listdir(tmp_path / "one/tiny/drawings") == ["s001.json"]


@pytest.mark.slow
def test_what_did_not_answer_in_time_is_not_drawn(needs_sandbox: None, course: Path, tmp_path: Path) -> None:
    submitted = tmp_path / "submitted/s001/tiny"
    submitted.mkdir(parents=True)
    loop = "def double(x):\n    while len(x) == 3: pass\n    return 2 * x\n"  # the table of the drawing has two rows
    (submitted / "tiny.py").write_text(loop)
    job = Job.of(replace(assignment.load("tiny", course), seconds=2), seed.given(0), confined=True)
    grade_class(job, tmp_path / "submitted", tmp_path / "out", ["s001"], workers=1)
    assert not drawings_path(tmp_path / "out", "tiny", "s001").exists()
