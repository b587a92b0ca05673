"""GitHub Classroom: the folder of `gh classroom clone student-repos`, or a zip file of it.

`hw1-submissions/hw1-jdoe/…`: one folder, and in it the repositories, each named by the assignment and the account (or
the team). The source may be this folder, or contain it.
"""

from collections.abc import Iterable
from dataclasses import replace

from autograder.collect.archive import Entry, Source
from autograder.collect.people import Person, Reading, student_id

_SUFFIX = "-submissions"


def read(source: Source, assignment: str) -> Reading:
    """Return the submissions, by account."""
    reading = _read(source.entries)
    folder = source.path.resolve().name.removesuffix(".zip")
    if not reading.handed and folder.endswith(_SUFFIX):
        reading = _read(replace(entry, path=(folder, *entry.path)) for entry in source.entries)
    return reading


def _read(entries: Iterable[Entry]) -> Reading:
    reading = Reading()
    for entry in entries:
        prefix = entry.path[0].removesuffix(_SUFFIX) + "-"
        if not entry.path[0].endswith(_SUFFIX) or len(entry.path) < 2 or not entry.path[1].startswith(prefix):
            reading.misfits.append(entry.name)
            continue
        repository = entry.path[1]
        account = repository.removeprefix(prefix)
        handed = reading.of(repository, Person((account, repository), student_id(account)), account, repository)
        if not entry.is_folder:
            handed.files.append((entry.path[2:] or (repository,), entry))
    return reading
