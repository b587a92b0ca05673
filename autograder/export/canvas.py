"""Canvas: the CSV that Gradebook → Import takes.

Canvas wants the columns Student, ID, SIS User ID, SIS Login ID, Section and then the assignments, and a second row with
the points possible. It finds a student by ID, else by SIS User ID, else by SIS Login ID, else by name; the student's id
here is given as the login, and the roster's columns `canvas` and `name` as ID and name. There is one file per
assignment, because an empty cell would erase the mark of a student who has one in Canvas but no result here. To aim at
an existing Canvas assignment of another name, write “Title (Canvas id)” into the first row.
"""

from __future__ import annotations

from autograder.export.known import Known
from autograder.export.sheets import Row, csv_bytes
from autograder.results import Result


def files(results: list[Result], known: Known) -> dict[str, bytes]:
    """`<assignment>.canvas.csv`."""
    name = results[0].assignment
    rows: list[Row] = [
        ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", name],
        ["    Points Possible", None, None, None, None, max(result.max_score for result in results)],
    ]
    for result in results:
        name_of, number = known.of(result.student, "name") or result.student, known.of(result.student, "canvas")
        rows.append([name_of, number, None, result.student, None, result.score])
    return {f"{name}.canvas.csv": csv_bytes(rows)}
