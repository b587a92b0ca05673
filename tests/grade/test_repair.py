"""Repair: whatever became of a notebook, what was given is given, and what a student wrote counts."""

import json

import pytest

from autograder import assignment as assignments
from autograder.grade.submissions import submitted_program
from autograder.quality.notebook_edits import edit_notebook
from autograder.release.programs import released, solved
from ebmcourse.checking.program import MAX_LINES


@pytest.fixture
def note(note_course):
    return assignments.load("note", note_course)


def repaired(note, *edits, base=solved):
    """The program and the remarks of the reference's notebook after `edits`."""
    text = base(note)
    for edit in edits:
        text = edit_notebook(text, edit)
    return submitted_program(note, text)


def without_metadata(text, name_in=None):
    """The notebook as an editor saves it that keeps no metadata, or nothing but the ids, elsewhere."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        name = cell.pop("id")
        cell["metadata"] = {"id": name} if name_in == "metadata" else {}
        if name_in == "cell":
            cell["id"] = name
    return json.dumps(notebook)


def test_what_was_handed_in_as_it_should_be_is_taken_as_it_is(note):
    program, remarks = repaired(note)
    assert not remarks and "secret_product" in program["cell double"]
    assert list(program) == ["note.py", "cell setup", "cell double", "cell 3", "cell 4", "cell plus", "cell 6"]
    program, remarks = repaired(note, base=released)
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
            "the solution cell `double` is there more than once; all that were written count",
        ),
        (
            {"cell": "test-1a", "metadata": '{"nbgrader": {"grade_id": "test-1a", "grade": true, "points": 900}}'},
            "the points or the kind of the tested cell `test-1a` were changed; they were put back",
        ),
        (
            {"cell": "setup", "metadata": '{"nbgrader": {"grade_id": "setup", "solution": true}}'},
            "the points or the kind of the given cell `setup` were changed; they were put back",
        ),
        (
            {"kernel": "x", "language": "julia"},
            "the notebook asks for another kernel than Python 3; it was graded with Python 3",
        ),
    ],
)
def test_what_was_damaged_is_repaired_and_mentioned(note, edit, remark):
    program, remarks = repaired(note, edit)
    assert remarks == [remark]
    for name in ("cell setup", "cell double", "cell plus"):
        assert program[name] == repaired(note)[0][name]


def test_a_solution_cell_that_is_gone_counts_as_not_written(note):
    program, remarks = repaired(note, {"cell": "double", "delete": True})
    assert remarks == ["the solution cell `double` is missing; it counts as not written"]
    assert "NotImplementedError" in program["cell double"] and "torch.add" in program["cell plus"]


DOUBLE = "def double(x):\n    return x"


def test_a_copy_that_was_not_written_counts_for_nothing(note):
    """A student copies the stub, writes into one of both, and leaves the other as it is, or empties it."""
    copy, write = {"cell": "double", "duplicate": True}, {"cell": "double", "source": DOUBLE}
    program, _ = repaired(note, copy, write, base=released)
    assert program["cell double"] == DOUBLE and "cell double (2)" not in program
    program, _ = repaired(note, write, copy, {"cell": "double", "source": "\n"}, base=released)
    assert program["cell double"] == DOUBLE and "cell double (2)" not in program


def test_all_versions_that_were_written_run_in_their_order(note):
    first = {"cell": "double", "duplicate": True}, {"cell": "double", "source": "def half(x):\n    return x / 2"}
    program, _ = repaired(note, *first, {"cell": "double", "after": "UNIT = 1.0"})
    assert list(program)[1:5] == ["cell setup", "cell double", "cell 3", "cell double (2)"]
    assert "half" in program["cell double"] and "secret_product" in program["cell double (2)"]


def test_cells_of_the_students_own_stay_where_they_are(note):
    program, remarks = repaired(note, {"cell": "setup", "after": "def helper():\n    pass"})
    assert not remarks and list(program)[1:4] == ["cell setup", "cell 2", "cell double"]


@pytest.mark.parametrize("name_in", [None, "cell", "metadata"])
def test_cells_are_known_by_ids_by_their_text_or_by_what_they_define(note, name_in):
    program, remarks = submitted_program(note, without_metadata(solved(note), name_in))
    assert not remarks
    assert list(program) == list(repaired(note)[0])
    assert "secret_product" in program["cell double"] and "torch.add" in program["cell plus"]


def test_a_stub_without_metadata_is_the_stub(note):
    program, remarks = submitted_program(note, without_metadata(released(note)))
    assert not remarks and program == repaired(note, base=released)[0]


@pytest.mark.parametrize("base", [released, solved])
def test_a_solution_in_two_cells_without_metadata_is_put_together(note, base):
    halves = "import math\ndef double(x):\n    return twice(x)", "def twice(x):\n    return 2 * x"
    edits = {"cell": "double", "source": halves[0]}, {"cell": "double", "after": halves[1]}
    text = base(note)
    for edit in edits:
        text = edit_notebook(text, edit)
    program, _ = submitted_program(note, without_metadata(text))
    assert program["cell double"] == halves[0] and program["cell 3"] == halves[1]


def role(program, name):
    """What becomes of a cell of the program."""
    return eval(program["note.py"].partition("run_cells(globals(), ")[2].strip()[:-1])[name]


@pytest.mark.parametrize("cell", ["setup", "test-1a", "plus"])
def test_a_solution_joined_with_another_cell_is_found(note, cell):
    """It runs before the original of a given cell, which so defines what is given."""
    source = next(c["source"] for c in json.loads(solved(note))["cells"] if c["id"] == cell)
    joined = f"{DOUBLE}\n\n" + "".join(source)
    program, remarks = repaired(note, {"cell": cell, "source": joined}, {"cell": "double", "delete": True})
    assert "the solution cell `double` is not filled in; another cell defines what it should" in remarks
    assert "cell double" not in program
    (name,) = (name for name, text in program.items() if text == joined)
    assert role(program, name) == "solution"
    if cell == "setup":
        assert list(program).index(name) < list(program).index("cell setup")


def test_what_a_changed_given_cell_defines_besides_is_kept(note):
    changed = {"cell": "setup", "source": "import math\nFACTOR = 4\ndef helper(x):\n    return x"}
    program, remarks = repaired(note, changed)
    assert remarks == ["the given cell `setup` was changed; it was put back"]
    assert list(program)[1:3] == ["cell 1", "cell setup"] and role(program, "cell 1") == "own"


def test_roles_are_those_of_the_release(note):
    fake = '{"nbgrader": {"grade_id": "mine", "solution": true, "locked": true}}'
    edits = {"cell": "setup", "after": "1 / 0"}, {"cell": "new-0", "metadata": fake}
    program, _ = repaired(note, *edits)
    assert role(program, "cell 2") == "own"


@pytest.mark.parametrize("unit", ["def x", "def ", "class ", "async ", "\n", " ", "a" * 50])
def test_no_text_takes_long_to_search(note, unit):
    """Any of these would take hours, were the time to search them quadratic."""
    count = MAX_LINES - 1000 if unit == "\n" else 900_000 // len(unit)
    repaired(note, {"cell": "double", "source": unit * count})
