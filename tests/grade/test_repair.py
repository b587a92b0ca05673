"""Mending: whatever became of a notebook, what was given is given, and what a student wrote counts."""

import json

import pytest

from autograder import assignment as assignments
from autograder.grade.submissions import submitted_program
from autograder.quality.notebook_edits import edit_notebook
from autograder.release.programs import released, solved


@pytest.fixture
def note(note_course):
    return assignments.load("note", note_course)


def mended(note, *edits, base=solved):
    """The program and the remarks of the reference's notebook after `edits`."""
    text = base(note)
    for edit in edits:
        text = edit_notebook(text, edit, "test")
    return submitted_program(note, text)


def without_metadata(text):
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        cell["metadata"] = {}
        cell.pop("id")
    return json.dumps(notebook)


def test_what_was_handed_in_as_it_should_be_is_taken_as_it_is(note):
    program, remarks = mended(note)
    assert not remarks and "secret_product" in program["cell double"]
    assert list(program) == ["note.py", "cell setup", "cell double", "cell 3", "cell plus"]
    program, remarks = mended(note, base=released)
    assert not remarks and "NotImplementedError" in program["cell double"]


@pytest.mark.parametrize(
    ("edit", "remark"),
    [
        ({"cell": "setup", "source": "FACTOR = 4"}, "the given cell `setup` was changed; it was put back"),
        ({"cell": "setup", "delete": True}, "the given cell `setup` is missing; it was put back"),
        ({"cell": "setup", "duplicate": True}, "the given cell `setup` is there more than once; one counts"),
        ({"cell": "test-1a", "delete": True}, "the tested cell `test-1a` is missing; it was put back"),
        ({"cell": "test-1a", "source": "8"}, "the tested cell `test-1a` was changed; it was put back"),
        (
            {"cell": "double", "duplicate": True},
            "the solution cell `double` is there more than once; the last that was written counts",
        ),
        (
            {"cell": "test-1a", "metadata": '{"nbgrader": {"grade_id": "test-1a", "grade": true, "points": 900}}'},
            "the points or the kind of the tested cell `test-1a` were changed; they were put back",
        ),
        (
            {"cell": "setup", "metadata": '{"nbgrader": {"grade_id": "setup", "solution": true}}'},
            "the points or the kind of the given cell `setup` were changed; they were put back",
        ),
        ({"kernel": "julia"}, "the notebook asks for another kernel than Python 3; it was graded with Python 3"),
    ],
)
def test_what_was_damaged_is_mended_and_mentioned(note, edit, remark):
    program, remarks = mended(note, edit)
    assert remarks == [remark]
    assert list(program.values())[1:] == list(mended(note)[0].values())[1:]


def test_a_solution_cell_that_is_gone_counts_as_not_written(note):
    program, remarks = mended(note, {"cell": "double", "delete": True})
    assert remarks == ["the solution cell `double` is missing; it counts as not written"]
    assert "NotImplementedError" in program["cell double"] and "torch.add" in program["cell plus"]


def test_the_last_version_that_was_written_counts(note):
    """A student copies the stub, writes into one of both and leaves the other."""
    edits = {"cell": "double", "duplicate": True}, {"cell": "double", "source": "def double(x):\n    return x"}
    program, _ = mended(note, *edits, base=released)
    assert program["cell double"] == "def double(x):\n    return x"


def test_cells_of_the_students_own_stay_where_they_are(note):
    program, remarks = mended(note, {"cell": "setup", "after": "def helper():\n    pass"})
    assert not remarks and list(program)[:4] == ["note.py", "cell setup", "cell 2", "cell double"]


def test_cells_are_known_by_what_they_define_where_an_editor_has_lost_everything_else(note):
    program, remarks = submitted_program(note, without_metadata(solved(note)))
    assert "secret_product" in program["cell double"] and "torch.add" in program["cell plus"]
    assert all("solution cell" not in remark for remark in remarks)
    assert "FACTOR = 2.0" in program["cell setup"]
