"""nbgrader's own layout, `<student>/<assignment>/…` with a `timestamp.txt`, such as the `submitted/` of another course.

`timestamp.txt` is written by the student's own process. It is kept, but `autograder.late` does not trust it.
"""

from autograder.collect.archive import Source
from autograder.collect.people import Person, Reading, student_id
from autograder.late import TIMESTAMP


def read(source: Source, assignment: str) -> Reading:
    """Return the submissions of `assignment`. Fits only if every submission has a time written by nbgrader."""
    reading = Reading()
    stamped = {entry.path[:2] for entry in source.entries if entry.path[2:] == (TIMESTAMP,)}
    for entry in source.entries:
        if entry.path[:2] not in stamped:
            reading.misfits.append(entry.name)
        elif entry.path[1] == assignment and not entry.is_folder:
            student = entry.path[0]
            reading.of(student, Person((student,), student_id(student))).files.append((entry.path[2:], entry))
    others = sorted({path[0] for path in stamped} - reading.handed.keys())
    if others and reading.handed:
        reading.remarks.append(f"handed in other assignments only: {', '.join(others)}")
    return reading
