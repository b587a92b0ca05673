"""Hand in the sample class of an assignment: `hand_in.py NAME FOLDER`, with one folder for each student.

A `*` in FOLDER is replaced by the student's id; without it, the folders of the students are created in FOLDER.
"""

from __future__ import annotations

import sys
from pathlib import Path

from autograder import assignment as assignments
from autograder.quality.cases import load
from autograder.release.programs import released


def main(name: str, folder: str) -> None:
    assignment = assignments.load(name)
    for case in load(assignment, "class"):
        target = Path(folder.replace("*", case.name) if "*" in folder else f"{folder}/{case.name}")
        case.write(assignment, target)
        if not assignment.hands_in_notebook:  # then it has the written answers only
            (target / f"{name}.ipynb").write_text(released(assignment), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
