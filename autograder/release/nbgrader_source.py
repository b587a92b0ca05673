"""nbgrader's source folder: the input of `nbgrader generate_assignment`.

nbgrader removes solutions from notebooks only and copies all other files with their solutions. Therefore its source is
the release, in which solutions are already removed, with the instructors' notebook instead of the students' one. From
it, nbgrader makes the same release, byte for byte, and adds the cells to its gradebook.
"""

import shutil
from pathlib import Path

from autograder.assignment import COURSE, Assignment
from autograder.release.notebooks import full_notebook
from autograder.release.programs import part_points
from autograder.results import write_atomically


def fill(assignment: Assignment, course: Path = COURSE) -> Path | None:
    """Rebuild the source folder from `assignments/<name>/`, and return it; return None if there is no notebook.

    It is `build/source/<name>/`: see `source_directory` in nbgrader_config.py.
    """
    if assignment.notebook is None:
        return None
    released, target = course / "assignments" / assignment.name, course / "build" / "source" / assignment.name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(released, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    text = full_notebook(assignment.notebook.read_text("utf-8"), part_points(assignment))
    write_atomically(target / f"{assignment.notebook.stem}.ipynb", text.encode("utf-8"))
    return target
