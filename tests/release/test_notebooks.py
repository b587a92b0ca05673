"""Notebooks: from the percent script to the students' notebook, its cells, and nbgrader's commands."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.core.formatters import DisplayFormatter
from nbformat.v4 import new_code_cell, new_output
from nbgrader.api import Gradebook
from nbgrader.nbgraderformat import MetadataValidator
from nbgrader.utils import determine_grade
from nbgrader_commands import nbgrader as run_nbgrader
from notebook_runs import executed, printed, public_points

from autograder import assignment as assignments
from autograder.release.build import build
from autograder.release.notebooks import full_notebook, student_notebook
from autograder.release.programs import part_points
from ebmcourse.assignment import Unusable
from ebmcourse.checking import notebook as cells
from ebmcourse.checking.notebook import Report, check_part, once_written
from ebmcourse.checking.outcome import Outcome
from ebmcourse.checking.public import PublicChecks

SCRIPT = '''\
# %% [markdown]
# # A tiny notebook
# with $E = -f$

# %% nbgrader={"grade_id": "setup", "locked": true}
# %matplotlib inline
from ebmcourse.checking.notebook import check_part, once_written


# %% nbgrader={"grade_id": "triple", "solution": true}
def triple(x):
    """Three times x."""
    ### BEGIN SOLUTION 1c
    # TODO Return three times x.
    # That is a number.
    hidden_factor = 3
    return hidden_factor * x
    ### END SOLUTION


# %%
with once_written():
    import tiny

    tiny.double(1)

# %% nbgrader={"grade_id": "test-1a", "grade": true, "locked": true}
check_part("1a")

# %% nbgrader={"grade_id": "test-1b", "grade": true, "locked": true}
check_part("1b")

# %% [markdown]
# Why?

# %% [markdown] nbgrader={"grade_id": "answer-1d", "grade": true, "solution": true, "points": 4}
# Because of the model answer.
#
# ### BEGIN MARK SCHEME
# four points for the reason
# ### END MARK SCHEME
'''
POINTS = {"1a": 2.0, "1b": 1.0}
WITH_NOTEBOOK = [name for name in assignments.names() if assignments.load(name).notebook]
BESIDE_FILES = [name for name in WITH_NOTEBOOK if not assignments.load(name).hands_in_notebook]


def cell_by_id(text: str, name: str) -> dict:
    return next(cell for cell in json.loads(text)["cells"] if cell["id"] == name)


def source_of(text: str, name: str) -> str:
    return "".join(cell_by_id(text, name)["source"])


def test_the_students_notebook_has_the_todo_instead_of_the_solution():
    text = student_notebook(SCRIPT, POINTS)
    assert source_of(text, "triple") == (
        'def triple(x):\n    """Three times x."""\n    # TODO (1c): Return three times x.\n    # That is a number.\n'
        '    raise NotImplementedError("Exercise 1c: Return three times x.")'
    )
    assert source_of(text, "answer-1d") == "YOUR ANSWER HERE"
    assert "hidden_factor" in full_notebook(SCRIPT, POINTS) and "model answer" in full_notebook(SCRIPT, POINTS)
    for secret in ("hidden_factor", "model answer", "four points", "SOLUTION", "MARK SCHEME", "HIDDEN", "autograder"):
        assert secret not in text


def test_the_instructors_tested_cells_call_all_checks():
    assert source_of(student_notebook(SCRIPT, POINTS), "test-1a") == 'check_part("1a")'
    assert "from autograder.grade.nbgrader_cells import check_part\n" in source_of(
        full_notebook(SCRIPT, POINTS), "test-1a"
    )


def test_cells_are_named_by_grade_id_or_position_and_locked_as_nbgrader_does():
    text = student_notebook(SCRIPT, POINTS)
    assert [cell["id"] for cell in json.loads(text)["cells"]] == [
        *("cell-000", "setup", "triple", "cell-003", "test-1a", "test-1b", "cell-006", "answer-1d")
    ]
    assert cell_by_id(text, "test-1a")["metadata"]["nbgrader"]["points"] == 2.0
    assert cell_by_id(text, "test-1a")["metadata"]["editable"] is False
    assert "editable" not in cell_by_id(text, "answer-1d")["metadata"]
    assert "nbgrader" not in cell_by_id(text, "cell-003")["metadata"]


@pytest.mark.parametrize("make", [full_notebook, student_notebook])
def test_a_notebook_is_reproducible(make):
    assert make(SCRIPT, POINTS) == make(SCRIPT, POINTS)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("test-1b", "test-1c", "'test-1c' does not belong to a part"),
        ('"test-1b", "grade": true', '"other"', "does not test 1b: add a cell with the grade_id `test-1b`"),
        ('"setup"', '"answer-1d"', "Duplicate grade id"),
        ('"setup"', '"not a name"', "not a name"),
        ('"points": 4', '"locked": false', "does not have points"),
        ("# TODO Return", "# Return", "TODO"),
        ("SOLUTION 1c", "SOLUTION", "TODO"),
        ("    ### END SOLUTION\n", "", "not closed"),
        ('"solution": true}\ndef', '"locked": true}\ndef', "non-solution cell"),
    ],
)
def test_invalid_metadata_is_refused(old, new, complaint):
    assert old in SCRIPT
    with pytest.raises(ValueError, match=complaint):
        student_notebook(SCRIPT.replace(old, new), POINTS)


@pytest.mark.parametrize("name", WITH_NOTEBOOK)
def test_the_notebooks_of_the_course_are_valid_and_test_every_part_once(name):
    assignment = assignments.load(name)
    assert assignment.notebook
    script, points = assignment.notebook.read_text("utf-8"), part_points(assignment)
    student = nbformat.reads(student_notebook(script, points), as_version=4)
    nbformat.validate(student)
    MetadataValidator().validate_nb(student)
    about = [cell.metadata.nbgrader for cell in student.cells if "nbgrader" in cell.metadata]
    tested = {meta.grade_id: meta.points for meta in about if meta.grade and not meta.solution}
    assert tested == {f"test-{part.replace('.', '-')}": value for part, value in points.items()}
    assert not any(cell.get("outputs") for cell in student.cells)


@pytest.mark.parametrize("name", WITH_NOTEBOOK)
def test_no_line_of_an_answer_reaches_the_students(name):
    assignment = assignments.load(name)
    assert assignment.notebook
    script, points = assignment.notebook.read_text("utf-8"), part_points(assignment)
    student, full = student_notebook(script, points), json.loads(full_notebook(script, points))
    answers = [cell for cell in full["cells"] if cell["metadata"].get("nbgrader", {}).get("solution")]
    lines = {line.strip() for cell in answers if cell["cell_type"] == "markdown" for line in cell["source"]}
    assert lines
    assert [line for line in lines if line and json.dumps(line, ensure_ascii=False)[1:-1] in student] == []


# Functions that cells call


@pytest.fixture
def released(tiny_course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The release of the tiny assignment, which is also the working directory, as for a notebook."""
    target = tmp_path / "tiny"
    build(assignments.load("tiny", tiny_course), target)
    monkeypatch.chdir(target)
    return target


@pytest.fixture
def solved(released: Path, tiny_course: Path) -> Path:
    shutil.copy(tiny_course / "solutions" / "tiny" / "tiny.py", released)
    return released


def test_check_part_shows_the_outcomes_and_returns_the_points(released, tiny_course, capfd):
    assert check_part("1a") == 0
    shown = capfd.readouterr().out
    assert "1a  Doubling: 0 of 2 points from the public checks" in shown
    assert "(not implemented yet)" in shown and "Hint: Multiply by two." in shown
    shutil.copy(tiny_course / "solutions" / "tiny" / "tiny.py", released)  # changed files are reloaded
    assert check_part("1a") == 2
    (released / "tiny.py").write_text("def double(x):\n    return x * x\n")
    assert check_part("1a") == 0
    assert "This is the square." in capfd.readouterr().out


def test_the_points_are_read_by_nbgrader_and_not_shown_below_the_report():
    outcomes = [Outcome(f"x{points}", "1a", "", "passed", points, 1.0, True) for points in (0.5, 0.75)]
    shown, _ = DisplayFormatter().format(Report("1a", "Doubling", outcomes, "checks").show())
    assert shown == {"text/plain": "1.25", "text/html": ""}  # a notebook shows HTML where there is some
    cell = new_code_cell(outputs=[new_output("execute_result", shown)])
    cell.metadata.nbgrader = {"grade": True, "solution": False, "points": 3}
    assert determine_grade(cell) == (1.25, 3)


def test_check_part_writes_nothing_to_standard_error(solved, capfd):
    noise = "import os, sys, warnings\nsys.stderr.write('a')\nos.write(2, b'b')\nwarnings.warn('c')\nprint('d')\n"
    (solved / "tiny.py").write_text(noise + (solved / "tiny.py").read_text())
    assert check_part("1a") == 2
    captured = capfd.readouterr()
    assert captured.err == "" and "d\n" not in captured.out
    os.write(2, b"open again")
    assert capfd.readouterr().err == "open again"


@pytest.mark.slow
@pytest.mark.parametrize("program", ["def double(x):", "import os\nos._exit(0)", "1 / 0"])
def test_a_program_that_cannot_be_imported_gets_no_points(released, program):
    (released / "tiny.py").write_text(program)
    assert check_part("1a") == 0


@pytest.mark.parametrize(("part", "told"), [(1, "1  Doubling"), (9.5, "no checks of the part '9.5'")])
def test_a_part_may_be_written_as_a_number(released, capfd, part, told):
    try:
        check_part(part)
    except Unusable as mistake:
        print(mistake)
    assert told in capfd.readouterr().out


def test_a_missing_file_is_named(released, capfd):
    (released / "tiny.py").unlink()
    assert check_part("1a") == 0
    assert "`tiny.py` is missing" in capfd.readouterr().out


@pytest.mark.slow
def test_a_killed_process_is_replaced(solved):
    assert check_part("1a") == 2
    process = cells._process(Path.cwd(), ())
    assert process._process
    process._process.kill()
    process._process.wait()
    assert check_part("1a") == 2


@pytest.mark.slow
def test_nbgraders_validation_runs_the_public_checks_only(solved, released, monkeypatch):
    """For nbgrader, a number below the points of the cell is a failure, and None a success. 1b has no public check."""
    monkeypatch.setenv("NBGRADER_EXECUTION", "validate")
    assert check_part("1a") is None and check_part("1b") is None
    (solved / "tiny.py").write_text("")
    assert check_part("1a") == 0


def test_the_public_checks_of_one_part_or_all_parts_can_be_run(solved):
    process = cells._process(solved, ())
    assert [outcome.id for outcome in PublicChecks(solved).outcomes(process)] == ["1a/double"]
    assert [outcome.passed for outcome in PublicChecks(solved, "1a").outcomes(process)] == [True]
    assert PublicChecks(solved, "1b").outcomes(process) == []
    folders = {Path(getattr(module, "__file__", None) or "/").parent for module in list(sys.modules.values())}
    assert solved / "checks" not in folders and str(solved / "checks") not in sys.path


def test_a_wrong_folder_or_part_is_reported_in_a_sentence(released):
    with pytest.raises(Unusable, match=r"no checks of the part '9z': there are checks of 1a, 1b") as stopped:
        check_part("9z")
    assert stopped.value._render_traceback_() == [str(stopped.value)]  # no lines of ours in the notebook
    (released / "checks" / "test_1.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(Unusable, match=r"cannot be loaded .*nothing_of_this_name"):
        check_part("1a")
    (released / "checks" / "recorded.safetensors").write_bytes(b"")
    with pytest.raises(Unusable, match="damaged"):
        check_part("1a")
    shutil.rmtree(released / "checks")
    with pytest.raises(Unusable, match="no folder `checks`"):
        check_part("1a")


def test_all_text_is_escaped():
    hostile = "<script>alert(1)</script> & `<b>`"
    outcome = Outcome("x", "1a", hostile, "failed", 0.0, 1.0, True, hostile, hostile)
    html = Report(hostile, hostile, [outcome], "checks")._repr_html_()
    assert "<script" not in html and "<b>`" not in html and "<code>&lt;b&gt;</code>" in html


def test_once_written_hides_only_not_implemented_errors(capfd):
    with once_written():
        raise NotImplementedError("Exercise 1a: Double.")
    assert capfd.readouterr().out == "Not yet: Exercise 1a: Double.\n"
    with pytest.raises(ZeroDivisionError), once_written():
        raise ZeroDivisionError


# With nbgrader itself

CONFIG = """
from autograder.release.notebooks import PREPROCESSORS

c = get_config()
c.GenerateAssignment.preprocessors = PREPROCESSORS
c.CourseDirectory.course_id = "tiny"
c.CourseDirectory.source_directory = "source"
c.CourseDirectory.release_directory = "assignments"
c.Autograde.exclude_overwriting = {"tiny": ["tiny.py"]}
c.Execute.timeout = 300
"""


def nbgrader(folder: Path, *arguments: str) -> str:
    """Run an nbgrader command in `folder`, without the user's configuration; return its output."""
    places = {f"JUPYTER_{name}_DIR": str(folder / ".jupyter" / name) for name in ("CONFIG", "RUNTIME")}
    return run_nbgrader(*arguments, cwd=folder, env=places | {"EBM_COURSE_SEED_FILE": str(folder / ".seed")})


@pytest.mark.slow
def test_generate_assignment_makes_the_same_notebook(tmp_path):
    """tests/cycle does this with the assignments of the course."""
    (tmp_path / "nbgrader_config.py").write_text(CONFIG)
    source = tmp_path / "source" / "tiny"
    source.mkdir(parents=True)
    (source / "tiny.ipynb").write_text(full_notebook(SCRIPT, POINTS), "utf-8")
    nbgrader(tmp_path, "generate_assignment", "tiny")
    made = (tmp_path / "assignments" / "tiny" / "tiny.ipynb").read_text("utf-8")
    assert made == student_notebook(SCRIPT, POINTS)


@pytest.mark.slow
def test_nbgrader_validates_a_solution_and_grades_it_with_hidden_checks(tiny_course, tmp_path):
    source, work = tiny_course / "source" / "tiny", tiny_course / "submitted" / "s001" / "tiny"
    build(assignments.load("tiny", tiny_course), source)
    (source / "tiny.ipynb").write_text(full_notebook(SCRIPT, POINTS), "utf-8")
    (tiny_course / "nbgrader_config.py").write_text(CONFIG)
    nbgrader(tiny_course, "generate_assignment", "tiny")
    shutil.copytree(tiny_course / "assignments" / "tiny", work)
    assert "VALIDATION FAILED ON 2 CELL(S)" in nbgrader(work, "validate", "tiny.ipynb")  # 1a, and the answer
    solution = (tiny_course / "solutions" / "tiny" / "tiny.py").read_text("utf-8")
    wrong_in_1b = solution.replace("alpha=1", "alpha=2")  # only a hidden check fails
    (work / "tiny.py").write_text(wrong_in_1b)
    notebook = nbformat.read(work / "tiny.ipynb", 4)
    notebook.cells[-1].source = "Because."
    nbformat.write(notebook, work / "tiny.ipynb")
    assert "Success" in nbgrader(work, "validate", "tiny.ipynb")
    nbgrader(tiny_course, "autograde", "tiny")
    with Gradebook(f"sqlite:///{tiny_course / 'gradebook.db'}") as gradebook:
        grades = {
            name: gradebook.find_grade(name, "tiny", "tiny", "s001") for name in ("test-1a", "test-1b", "answer-1d")
        }
        assert (grades["test-1a"].auto_score, grades["test-1b"].auto_score) == (2, 0)
        assert grades["answer-1d"].needs_manual_grade


# The reference notebooks


def marks(notebook: nbformat.NotebookNode) -> dict[str, float]:
    """The points that nbgrader gives for the outputs of the tested cells."""
    tested = [c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("grade") and c.cell_type == "code"]
    return {cell.id: determine_grade(cell)[0] for cell in tested}


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_NOTEBOOK)
def test_the_notebook_runs_with_the_stubs(name, tmp_path):
    build(assignments.load(name), tmp_path)
    stub = executed(tmp_path, name, seconds=900)
    assert set(marks(stub).values()) == {0}
    assert any(text.startswith("Not yet") for text in printed(stub, "stdout"))


@pytest.mark.slow
@pytest.mark.parametrize("name", BESIDE_FILES)  # notebooks that are handed in have their own tests
def test_the_notebook_runs_with_the_reference(name, tmp_path):
    assignment = assignments.load(name)
    build(assignment, tmp_path)
    for path in assignment.scripts:
        shutil.copy(path, tmp_path)
    reference = executed(tmp_path, name, seconds=900)
    assert marks(reference) == public_points(tmp_path)
    assert printed(reference, "stderr") == []
    assert not [text for text in printed(reference, "stdout") if "Not yet" in text]
