"""What a tested cell calls under `nbgrader autograde`: all checks of its part, also the hidden ones.

The instructor's notebook imports this `check_part` instead of the students'. The checks run in other processes, as with
`autograder grade`, but the points return to the kernel, in which the student's cells run as well. A student can forge
them there: only the marks of `autograder grade` are protected.
"""

import json
import subprocess
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path

from autograder.assignment import COURSE, load
from ebmcourse.checking.notebook import Report
from ebmcourse.checking.outcome import Outcome


def check_part(part: str) -> float:
    """Run all checks of one part on the files in the notebook's folder, show the outcomes, return the points.

    The notebook lies where nbgrader puts it: below the course, in a folder with the name of the assignment.
    """
    folder = Path.cwd()
    course = next((above for above in folder.parents if (above / "solutions" / folder.name).is_dir()), COURSE)
    outcomes = [outcome for outcome in outcomes_of(folder, course) if outcome.part == part]
    return Report(part, load(folder.name, course).parts.get(part, ""), outcomes, "checks").show()


@cache
def outcomes_of(folder: Path, course: Path) -> list[Outcome]:
    """Grade the submission in `folder` once; raises RuntimeError where that is not possible."""
    command = [sys.executable, "-P", "-m", "autograder.grade.nbgrader_cells", str(course), str(folder)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"The checks could not be run: {done.stderr.strip().rpartition(chr(10))[2]}")
    return [Outcome(**outcome) for outcome in json.loads(done.stdout)]


def main() -> None:
    """``python -m autograder.grade.nbgrader_cells COURSE FOLDER``: print the outcomes as JSON.

    The submission is confined where this machine can do that.
    """
    from autograder.grade.grader import Grader
    from autograder.grade.job import Job
    from autograder.grade.seed import secret
    from autograder.grade.submissions import read
    from autograder.sandbox.bubblewrap import Unavailable

    course, folder = (Path(argument) for argument in sys.argv[1:])
    assignment = load(folder.name, course)
    try:
        grader = Grader(Job.of(assignment, secret(), confined=True))
    except Unavailable:
        grader = Grader(Job.of(assignment, secret(), confined=False))
    student = folder.parent.name
    if assignment.hands_in_notebook:  # nbgrader writes it here only after its cells have run
        folder = course / "submitted" / student / assignment.name
    result, _ = grader.grade(read(folder, student, assignment))
    grader.close()
    print(json.dumps([asdict(check) for check in result.checks]))


if __name__ == "__main__":
    main()
