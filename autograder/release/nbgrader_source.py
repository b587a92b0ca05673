"""nbgrader's source folder: what `nbgrader generate_assignment` starts from.

nbgrader strips notebooks and copies every other file as it is, solutions included. So its source is the release, whose
files are stripped already, with the instructors' notebook in the place of the students'. What nbgrader makes of it is
the release again, byte for byte, and its gradebook knows the cells.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from autograder.assignment import COURSE, Assignment
from autograder.release.notebooks import full_notebook
from autograder.release.programs import part_points
from autograder.results import write_atomically


def source_folder(assignment: Assignment, course: Path = COURSE) -> Path:
    """Where nbgrader finds the source of an assignment (`source_directory` in nbgrader_config.py)."""
    return course / "build" / "source" / assignment.name


def fill(assignment: Assignment, course: Path = COURSE) -> Path | None:
    """Make the source folder anew from `assignments/<name>/`, and return it; None without a notebook to strip."""
    if assignment.notebook is None:
        return None
    released, target = course / "assignments" / assignment.name, source_folder(assignment, course)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(released, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    text = full_notebook(assignment.notebook.read_text("utf-8"), part_points(assignment))
    write_atomically(target / f"{assignment.notebook.stem}.ipynb", text.encode("utf-8"))
    return target
