"""A folder with one folder for each student, named by id, such as git clones.

Folders with names of Moodle's form do not fit.
"""

from autograder.collect.archive import Source
from autograder.collect.people import Person, Reading, student_id


def read(source: Source, assignment: str) -> Reading:
    """Return all files in folders; if a student has folders of several assignments, only those of this assignment."""
    reading = Reading()
    several = {entry.path[0] for entry in source.entries if len(entry.path) > 2 and entry.path[1] == assignment}
    for entry in source.entries:
        name, inner = entry.path[0], entry.path[1:]
        if (not inner and not entry.is_folder and not entry.refusal) or "_assignsubmission_" in name:
            reading.misfits.append(entry.name)
            continue
        handed = reading.of(name, Person((name,), student_id(name)), name)
        if name in several:
            inner = inner[1:] if inner[:1] == (assignment,) else ()
            if not inner:
                continue
        if not entry.is_folder:
            handed.files.append((inner or (name,), entry))
    return reading
