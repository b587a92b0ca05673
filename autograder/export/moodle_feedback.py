"""Moodle: a zip file of the feedback pages for “Upload multiple feedback files in a zip”.

Moodle finds the student by the number in the name of a file, `Full name_1234567_assignfeedback_file_jem.html`. The
grading worksheet has this number, except in an assignment for groups, where Moodle expects the number of the group.
"""

import io
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path

from autograder.collect import Roster
from autograder.results import Result, feedback_path, result_path

_DATE = (1980, 1, 1, 0, 0, 0)  # so that the same pages make the same file


def feedback_zip(results_dir: Path, results: Iterable[Result], roster: Roster) -> tuple[bytes, list[str]]:
    """Return the zip file, and the students who have no page, or one that was written before their last result.

    Without any page, the file is b"".
    """
    buffer = io.BytesIO()
    lacking = []
    with zipfile.ZipFile(buffer, "w") as archive:
        for result in results:
            student = roster.known_as(result.student)
            if student is None:
                continue
            page = feedback_path(results_dir, result.assignment, result.student)
            graded = result_path(results_dir, result.assignment, result.student)
            if not page.is_file() or page.stat().st_mtime < graded.stat().st_mtime:
                lacking.append(result.student)
                continue
            row = roster.people[student]
            name = re.sub(r"[\W_]+", " ", row.get("name", "")).strip()
            info = zipfile.ZipInfo(f"{name}_{row['moodle']}_assignfeedback_file_{result.assignment}.html", _DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, page.read_bytes())
        pages = archive.namelist()
    return buffer.getvalue() if pages else b"", lacking
