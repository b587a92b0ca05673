"""Runs a released notebook with the reference, to find cells that stop with an exception for every student."""

import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from autograder.assignment import Assignment
from autograder.release.programs import solved

# Short trainings, on one thread; and no remarks of the debugger, which a kernel has.
SETTINGS = {"EBM_PRESET": "small", "OMP_NUM_THREADS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
MAX_SECONDS = 3600  # for one cell


def first_error(assignment: Assignment, released: Path, progress: Callable[[int, int], None]) -> str | None:
    """Return a sentence about the first cell that stops with an exception, or None.

    `released` is the folder of the release. The cells run in a copy, with the reference in place of the stubs.
    ``progress(done, total)`` is called at the start and after every cell of code; empty ones do not run, or count.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    with TemporaryDirectory() as name:
        folder = Path(name) / assignment.name
        shutil.copytree(released, folder)
        for path in assignment.scripts:
            shutil.copy(path, folder)
        file = folder / f"{assignment.name}.ipynb"
        if assignment.hands_in_notebook:
            file.write_text(solved(assignment), "utf-8")
        notebook = nbformat.read(file, 4)
        resources = {"metadata": {"path": str(folder)}}
        total = sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in notebook.cells)
        done = itertools.count(1)
        client = NotebookClient(
            notebook,
            timeout=MAX_SECONDS,
            kernel_name="python3",
            resources=resources,
            on_cell_executed=lambda **cell: progress(next(done), total),
        )
        progress(0, total)
        try:
            client.execute(env=os.environ | SETTINGS, stderr=subprocess.DEVNULL)
        except CellExecutionError as error:
            cell = next(c for c in notebook.cells if any(o["output_type"] == "error" for o in c.get("outputs", ())))
            where = f"the cell {cell.id} of the notebook" + _line(error.traceback)
            return f"with the reference, {where} stops with {error.ename}: {error.evalue}"
    return None


def _line(traceback: str) -> str:
    """The line of the cell that IPython marks by an arrow, because cells without a `grade_id` are hard to find."""
    found = re.search(r"^-+> *\d+ +(.*\S)", re.sub(r"\x1b\[[\d;]*m", "", traceback), re.MULTILINE)
    return f" (`{found[1]}`)" if found else ""
