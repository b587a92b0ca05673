"""An assignment whose notebook is handed in: released, edited, checked in its kernel and graded."""

import json

import pytest
from click.testing import CliRunner
from test_notebooks import executed, marks, printed

from autograder import assignment as assignments
from autograder.quality.notebook_edits import edit_notebook
from autograder.release.build import build
from autograder.release.gate import leaks, stub_complaints
from autograder.release.programs import solved
from ebmcourse.checking.public import PublicChecks
from ebmcourse.cli import main as ebmcourse

pytestmark = pytest.mark.slow


@pytest.fixture
def note(note_course):
    return assignments.load("note", note_course)


@pytest.fixture
def released(note, tmp_path):
    build(note, tmp_path / "released")
    return tmp_path / "released"


def test_the_release_contains_the_notebook_without_the_solution(note, released):
    files = sorted(str(path.relative_to(released)) for path in released.rglob("*") if path.is_file())
    checks = [f"checks/{name}" for name in ("assignment.toml", "recorded.safetensors", "test_1.py")]
    assert files == ["README.md", *checks, "note.ipynb"]
    assert not leaks(note, released) and not stub_complaints(released)
    (released / "note.ipynb").write_text(solved(note), "utf-8")
    assert "alpha = 1" in leaks(note, released)[0]


def test_the_cells_check_the_definitions_in_the_kernel(note, released):
    """1a has a public check with 2 points, 1b only a hidden one. The notebook need not be saved."""
    stub = executed(released, "note")
    assert marks(stub) == {"test-1a": 0, "test-1b": 0} and printed(stub, "stderr") == []
    assert printed(stub, "stdout") == ["Not yet: Exercise 1a: Return twice x.\n"]
    (released / "note.ipynb").write_text(solved(note), "utf-8")
    assert marks(executed(released, "note")) == {"test-1a": 2, "test-1b": 0}
    changed_later = {"cell": "double", "after": "FACTOR = 3.0"}
    (released / "note.ipynb").write_text(edit_notebook(solved(note), changed_later), "utf-8")
    assert marks(executed(released, "note")) == {"test-1a": 0, "test-1b": 0}


def test_ebmcourse_check_reads_the_saved_notebook(note, released):
    assert "Not implemented yet: 1a" in CliRunner().invoke(ebmcourse, ["check", str(released)]).output
    (released / "note.ipynb").write_text(solved(note), "utf-8")
    assert [outcome.passed for outcome in PublicChecks(released).outcomes()] == [True]
    (released / "note.ipynb").write_text("{", "utf-8")
    (outcome,) = PublicChecks(released).outcomes()
    assert "`note.ipynb` cannot be used" in outcome.diagnosis
    (released / "note.ipynb").unlink()
    (outcome,) = PublicChecks(released).outcomes()
    assert outcome.diagnosis == "The file `note.ipynb` is missing."


def test_a_syntax_error_is_reported_with_its_cell_and_affects_one_exercise(note, released):
    broken = {"cell": "plus", "source": "def plus(x, y:\n    return x"}
    (released / "note.ipynb").write_text(edit_notebook(solved(note), broken), "utf-8")
    assert [outcome.passed for outcome in PublicChecks(released).outcomes()] == [True]
    broken = {"cell": "double", "source": "def double(x:\n    return x"}
    (released / "note.ipynb").write_text(edit_notebook(solved(note), broken), "utf-8")
    (outcome,) = PublicChecks(released).outcomes()
    assert "is not valid Python: '(' was never closed in cell double, line 1: `def double(x:`" in outcome.diagnosis


def test_every_cell_of_the_release_has_a_unique_id(note, released):
    cells = json.loads((released / "note.ipynb").read_text("utf-8"))["cells"]
    assert [cell["id"] for cell in cells] == ["setup", "double", "cell-002", "test-1a", "plus", "test-1b"]
