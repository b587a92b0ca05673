"""Moodle: the zip file of “Download all submissions”, or what it unpacks to.

In folders: `Full name_1234567_assignsubmission_file/ex_model.py` (older versions write `…_file_/`), or flat:
`Full name_1234567_assignsubmission_file_ex_model.py`. The number is the participant's within the assignment, or the
group's; with anonymous submissions the name is “Participant”. Moodle does not write times.
"""

from __future__ import annotations

import re

from autograder.imports.archive import Entry
from autograder.imports.people import Piece, made_id

_NAME = re.compile(r"(?P<name>.*?)(?:_(?P<number>\d+))?_assignsubmission_(?P<plugin>[a-z]+)(?:_(?P<file>.*))?")


def pieces(entries: list[Entry], assignment: str) -> list[Piece] | None:
    """The files that were handed in, by student; None where no name is Moodle's. Texts typed online are left out."""
    found = []
    for entry in entries:
        match = _NAME.fullmatch(entry.path[0])
        if not match or match["plugin"] != "file":
            continue
        inner = entry.path[1:] if len(entry.path) > 1 else (match["file"],)
        if inner[0]:
            number = match["number"] or ""
            names = (f"{match['name']} {number}".strip(), number, match["name"])
            found.append(Piece(names, made_id(match["name"], number), inner, entry))
    return found or None
