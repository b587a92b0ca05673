"""A folder with one folder for each student, named by id: git clones, or whatever a script has fetched."""

from __future__ import annotations

from autograder.imports.archive import Entry
from autograder.imports.people import Piece, student_id


def pieces(entries: list[Entry], assignment: str) -> list[Piece] | None:
    """All files in folders; None where there are none. Files beside the folders belong to nobody.

    Of a folder that holds several assignments, only the one with the assignment's name counts.
    """
    in_folders = [entry for entry in entries if len(entry.path) > 1]
    several = {entry.path[0] for entry in in_folders if len(entry.path) > 2 and entry.path[1] == assignment}
    found = []
    for entry in in_folders:
        name, inner = entry.path[0], entry.path[1:]
        if name in several:
            if len(inner) < 2 or inner[0] != assignment:
                continue
            inner = inner[1:]
        found.append(Piece((name,), student_id(name), inner, entry))
    return found or None
