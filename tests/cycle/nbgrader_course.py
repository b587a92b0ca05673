"""A course in a temporary folder, with an exchange, in which nbgrader's own commands run."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path

import nbformat
from click.testing import CliRunner
from nbgrader.api import Gradebook
from nbgrader_commands import nbgrader

from autograder import assignment as assignments
from autograder.assignment import COURSE, Assignment
from autograder.cli import main as autograder
from autograder.export.written_answers import grade_id, is_solution
from autograder.release.nbgrader_source import fill
from autograder.release.notebooks import solved_notebook
from autograder.release.programs import part_points

# The configuration of a student, as it is in the hand-out: the course, and files that are not handed in.
STUDENT_CONFIG = (COURSE / "autograder/release/template/handout/nbgrader_config.py").read_text("utf-8")


class Course:
    """A course with one assignment, which is copied from `origin` (default: this checkout)."""

    def __init__(self, folder: Path, name: str, origin: Path = COURSE) -> None:
        self.root, self.exchange, self.home = folder / "course", folder / "exchange", folder / "home"
        self.name = name
        for kind in ("solutions", "assignments"):
            shutil.copytree(origin / kind / name, self.root / kind / name)
        shutil.copy(COURSE / "nbgrader_config.py", self.root)
        self.assignment: Assignment = assignments.load(name, self.root)
        self.released = origin / "assignments" / name
        self.exchange.mkdir()
        self.exchange.chmod(0o777)
        fill(self.assignment, self.root)

    def nbgrader(self, *arguments: str, student: str = "", ok: bool = True) -> str:
        """Run an nbgrader command as the instructor or as a student; return its output."""
        where = self.folder_of(student) if student else self.root
        environment = {
            "NBGRADER_EXCHANGE": str(self.exchange),
            "EBM_COURSE_SEED_FILE": str(self.root.parent / "seed"),
            "OMP_NUM_THREADS": "1",
        }
        for kind in ("CONFIG", "DATA", "RUNTIME"):  # without the user's configuration
            environment[f"JUPYTER_{kind}_DIR"] = str(self.home / (student or "instructor") / kind.lower())
        return nbgrader(*arguments, cwd=where, env=environment, ok=ok)

    def autograder(self, *arguments: str, code: int = 0) -> str:
        """Run an autograder command on the course; return its output."""
        done = CliRunner().invoke(autograder, ["--course", str(self.root), *arguments])
        assert done.exit_code == code, done.output + str(done.exception)
        return done.output

    def grade(self) -> str:
        return self.autograder(
            *("grade", self.name, str(self.submitted()), "--out", str(self.results), "--seed", "7", "--workers", "1")
        )

    def export(self, to: str, *options: str) -> str:
        return self.autograder("export", str(self.results), "--to", to, "--submitted", str(self.submitted()), *options)

    @property
    def results(self) -> Path:
        return self.root / "results"

    def submitted(self, student: str = "") -> Path:
        return self.root / "submitted" / student / self.name if student else self.root / "submitted"

    def gradebook(self) -> Gradebook:
        return Gradebook(f"sqlite:///{self.root / 'gradebook.db'}")

    # As a student

    def folder_of(self, student: str) -> Path:
        folder = self.root.parent / "students" / student
        if not folder.is_dir():
            folder.mkdir(parents=True)
            (folder / "nbgrader_config.py").write_text(STUDENT_CONFIG)
        return folder

    def work_of(self, student: str) -> Path:
        """The folder in which the student works on the assignment."""
        return self.folder_of(student) / self.name

    def fetch(self, student: str) -> Path:
        self.nbgrader("fetch_assignment", self.name, "--course", "ebmcourse", student=student)
        return self.work_of(student)

    def submit(self, student: str) -> str:
        return self.nbgrader("submit", self.name, "--course", "ebmcourse", f"--student={student}", student=student)

    def collect(self, *options: str) -> str:
        # All students are the same user of this system, so ids and owners do not match.
        return self.nbgrader("collect", self.name, "--ExchangeCollect.check_owner=False", *options)

    @property
    def notebook(self) -> str:
        return f"{self.name}.ipynb"

    def solve(self, folder: Path) -> None:
        """Write a complete solution: the program of the reference, and a sentence in every written answer."""
        for path in self.assignment.scripts:
            shutil.copy(path, folder)
        if self.assignment.hands_in_notebook:
            assert self.assignment.notebook
            text = solved_notebook(self.assignment.notebook.read_text("utf-8"), part_points(self.assignment))
            (folder / self.notebook).write_text(text, "utf-8")
        self.edit(folder, lambda cell: "Because the energy is low there." if is_written(cell) else cell.source)

    def edit(self, folder: Path, new_source) -> None:
        """Replace the text of every cell of the notebook in `folder` by `new_source(cell)`."""
        notebook = nbformat.read(folder / self.notebook, 4)
        for cell in notebook.cells:
            cell.source = new_source(cell)
        nbformat.write(notebook, folder / self.notebook)

    def written(self) -> list[str]:
        """The names of the written answers."""
        notebook = nbformat.read(self.released / self.notebook, 4)
        return [grade_id(cell) for cell in notebook.cells if is_written(cell)]


def is_written(cell: nbformat.NotebookNode) -> bool:
    """Whether a cell is a written answer, which is graded manually."""
    return cell.cell_type == "markdown" and is_solution(cell)


def differences(one: Path, other: Path) -> list[str]:
    """The files that are not in both folders with the same content."""
    files = {path.relative_to(one) for path in one.rglob("*") if path.is_file()}
    files |= {path.relative_to(other) for path in other.rglob("*") if path.is_file()}
    _, different, missing = filecmp.cmpfiles(one, other, map(str, sorted(files)), shallow=False)
    return sorted([*different, *missing])
