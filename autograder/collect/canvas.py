"""Canvas: the zip file of “Download submissions”, or its content in a folder.

`lastnamefirstname_LATE_123_456_ex_model-1.py`: the sortable name (or the group's) without spaces, LATE where Canvas
says so, the numbers of user and file, and the name of the file, which Canvas numbers when a student hands it in again.
In anonymous submissions, `anon_ab12c` replaces name and user, and LATE comes first. Canvas does not
write times: the dates in the zip file are those of the download.
"""

import re

from autograder.collect.archive import Source
from autograder.collect.people import TYPED, Person, Reading, made_id

_WHO = r"(?:(?P<name>.+?)_)??(?P<late>LATE_)?(?P<user>\d+|anon_[0-9A-Za-z]+)"
_FILE = re.compile(rf"{_WHO}_(?P<number>\d+)_(?P<file>.+)")
_TYPED = re.compile(rf"{_WHO}_(?:text|link)\.html")


def read(source: Source, assignment: str) -> Reading:
    """Return the submissions. Online texts count as handed in, but are not collected."""
    reading = Reading()
    for entry in source.entries:
        match = _FILE.fullmatch(entry.path[0]) or _TYPED.fullmatch(entry.path[0])
        if len(entry.path) > 1 or not match or entry.is_folder:
            reading.misfits.append(entry.name)
            continue
        name, user = match["name"] or "", match["user"]
        label = f"{name} {user}".strip()
        handed = reading.of(label, Person((label, user, name), made_id(name, user), name), name)
        handed.late = bool(handed.late or match["late"])
        if match.re is _FILE:
            handed.files.append(((match["file"],), entry))
        else:
            handed.remarks.append(TYPED)
    return reading
