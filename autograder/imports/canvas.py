"""Canvas: the zip file of “Download submissions”, or what it unpacks to.

`lastnamefirstname_LATE_123_456_ex_model-1.py`: the sortable name without spaces, LATE where Canvas says so, the
numbers of user and file, and the name of the file, which Canvas numbers when a student hands it in again. Where
submissions are anonymous, there is `anon_ab12c` for name and user. Canvas does not write times.
"""

from __future__ import annotations

import re

from autograder.imports.archive import Entry
from autograder.imports.people import Piece, made_id

_NAME = re.compile(r"(?:(?P<name>.*?)_)?(?P<late>LATE_)?(?P<user>\d+|anon_\w+?)_(?P<number>\d+)_(?P<file>.+)")
_TYPED = re.compile(r"(?:(?P<name>.*?)_)?(?P<late>LATE_)?(?P<user>\d+|anon_\w+?)_(?:text|link)\.html")


def pieces(entries: list[Entry], assignment: str) -> list[Piece] | None:
    """The files that were handed in, by student; None where no name is Canvas's. Texts typed online are left out."""
    found = []
    for entry in entries:
        if len(entry.path) > 1 or _TYPED.fullmatch(entry.path[0]):
            continue
        if match := _NAME.fullmatch(entry.path[0]):
            name, user = match["name"] or "", match["user"]
            names = (f"{name} {user}".strip(), user, name)
            found.append(Piece(names, made_id(name, user), (match["file"],), entry, bool(match["late"])))
    return found or None
