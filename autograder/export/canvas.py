"""Canvas: the CSV file for Gradebook → Import.

Canvas requires the columns Student, ID, SIS User ID, SIS Login ID and Section, followed by the assignments, and a
second row with the points possible. It looks up a student by ID, then SIS User ID, then SIS Login ID, then name. The
student's id is exported as the login, and the columns `canvas` and `name` of the roster as ID and name.

There is one file per assignment, because an empty cell would delete the mark of a student who has no result here. To
import into an existing Canvas assignment with another name, write “Title (Canvas id)” in the first row.
"""

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
