"""One notebook, read in three ways: by its kernel, by `ebmcourse check`, and by grading."""

from __future__ import annotations

import io
import json
import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from IPython.core.history import HistoryManager
from IPython.core.interactiveshell import InteractiveShell

from autograder.assignment import Assignment
from autograder.grade.grader import NOTEBOOK_MODULES
from autograder.grade.submissions import Submission, read
from autograder.release.build import build
from autograder.release.programs import reference_program
from ebmcourse.checking.judge import Judge
from ebmcourse.checking.local import LocalProcess
from ebmcourse.checking.observer import Observer
from ebmcourse.checking.outcome import Outcome
from ebmcourse.checking.program import program_in, write_program
from ebmcourse.checking.public import PublicChecks
from ebmcourse.checking.reference import LiveReference
from ebmcourse.checking.untrusted.kernel import KernelProcess


class Sides:
    """All ways of checking a submission to an assignment of which one file is handed in; without a sandbox."""

    def __init__(self, assignment: Assignment, folder: Path) -> None:
        self.assignment = assignment
        (self.file,) = assignment.files
        self.released = folder / "released"
        build(assignment, self.released)
        for name in ("program", "reference", f"submitted/s001/{assignment.name}"):
            (folder / name).mkdir(parents=True)
        write_program(folder / "reference", reference_program(assignment))
        self._submitted = folder / "submitted" / "s001" / assignment.name
        self._judge = Judge(assignment.checks, LiveReference("a seed", folder / "reference"))
        self._process = LocalProcess(folder / "program", (*assignment.modules, *NOTEBOOK_MODULES))

    def close(self) -> None:
        self._process.close()

    def submission(self, content: bytes) -> Submission:
        (self._submitted / self.file).write_bytes(content)
        return read(self._submitted, "s001", self.assignment)

    def graded(self, content: bytes) -> list[Outcome]:
        """The outcomes of all checks in grading."""
        submission = self.submission(content)
        self._run(submission.files | self.assignment.given_texts())
        observer = Observer(self._process, submission.files, submission.problems, messages=False, budget=60)
        return self._judge.outcomes(observer)

    def checked(self, content: bytes) -> list[Outcome]:
        """The outcomes of the public checks with `ebmcourse check`."""
        (self.released / self.file).write_bytes(content)
        files, _ = program_in(self.released, self.assignment.files, self.assignment.given)
        self._run(files)
        return PublicChecks(self.released).outcomes(self._process)

    def _run(self, program: dict[str, str]) -> None:
        write_program(self._process.folder, program)
        self._process.restart()

    def in_kernel(self, content: bytes) -> list[Outcome]:
        """The outcomes of the public checks with `check_part`, after all other cells of the notebook were run."""
        cells = [cell for cell in json.loads(content)["cells"] if cell["cell_type"] == "code"]
        (self.released / self.file).write_bytes(content)
        with kernel(self.released) as shell:
            for cell in cells:
                if "".join(cell["source"]).strip() != 'check_part("1a")':
                    shell.run_cell("".join(cell["source"]), store_history=True)
            checks = PublicChecks(Path.cwd())
            return checks.outcomes(KernelProcess(self.assignment.name, self.assignment.given))


@contextmanager
def kernel(folder: Path) -> Iterator:
    """A new shell of IPython in this process, as a notebook in `folder` has one; its output is discarded."""
    before = Path.cwd(), sys.modules["__main__"], sys.displayhook, sys.excepthook
    os.chdir(folder)
    with (
        mock.patch.object(sys, "path", ["", *sys.path]),
        mock.patch.object(HistoryManager, "hist_file", ":memory:"),
        mock.patch.object(InteractiveShell, "system", lambda shell, command: None),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
    ):
        shell = InteractiveShell.instance(user_module=types.ModuleType("__main__"))
        try:
            yield shell
        finally:
            shell.history_manager.end_session()
            InteractiveShell.clear_instance()
            folder, sys.modules["__main__"], sys.displayhook, sys.excepthook = before
            os.chdir(folder)


def points(outcomes: list[Outcome]) -> dict[str, float]:
    """The points of the public checks, which all sides know."""
    return {outcome.id: outcome.points for outcome in outcomes if outcome.public}
