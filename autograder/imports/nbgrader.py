"""nbgrader's own layout, `<student>/<assignment>/…` with a `timestamp.txt`, such as the `submitted/` of another course.

The only kind whose times are taken over: everywhere else, a `timestamp.txt` was written by a student.
"""

from __future__ import annotations

from autograder.imports.archive import Entry
from autograder.imports.people import Piece, student_id
from autograder.late import TIMESTAMP


def pieces(entries: list[Entry], assignment: str) -> list[Piece] | None:
    """The files of all who handed in `assignment`; None unless nbgrader has written the time for each of them."""
    own = [entry for entry in entries if len(entry.path) > 2 and entry.path[1] == assignment]
    students = {entry.path[0] for entry in own}
    if not students or students != {entry.path[0] for entry in own if entry.path[2:] == (TIMESTAMP,)}:
        return None
    return [Piece((entry.path[0],), student_id(entry.path[0]), entry.path[2:], entry) for entry in own]
