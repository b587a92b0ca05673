"""The nbgrader course: its folders point into this project (see docs/instructor.md).

`autograder release` fills `build/source` and `assignments`; marks come from `autograder grade` and reach nbgrader's
gradebook through `autograder export --to nbgrader`.
"""

import os
from pathlib import Path

from autograder.assignment import load, names
from autograder.release.notebooks import PREPROCESSORS

ROOT = Path(__file__).resolve().parent

c = get_config()

c.CourseDirectory.course_id = "ebmcourse"
c.CourseDirectory.root = str(ROOT)
c.CourseDirectory.source_directory = "build/source"
c.CourseDirectory.release_directory = "assignments"
c.CourseDirectory.submitted_directory = "submitted"
c.CourseDirectory.autograded_directory = "autograded"
c.CourseDirectory.feedback_directory = "feedback"

# A stub names its exercise: what students see in place of a solution is the same as in the release.
c.GenerateAssignment.preprocessors = PREPROCESSORS

# nbgrader copies every other file from source over the student's before it grades: never the solutions.
c.Autograde.exclude_overwriting = {name: list(load(name, ROOT).files) for name in names(ROOT)}
c.Execute.timeout = 600

# The folder through which releases, submissions and feedback travel; everybody in the course can write there.
c.Exchange.root = os.environ.get("NBGRADER_EXCHANGE", "/usr/local/share/nbgrader/exchange")

# The outputs of a submission may hold HTML and JavaScript, which formgrader and feedback would run.
c.HTMLExporter.sanitize_html = True

# Above this size (in kB) nbgrader refuses a folder, and it counts what it ignores: checkpoints and pictures too.
c.CourseDirectory.max_dir_size = 4_000_000

# What students draw and train stays with them: `nbgrader submit` would copy it.
c.CourseDirectory.ignore = [".ipynb_checkpoints", "*.pyc", "__pycache__", "feedback", ".*", "data", "runs"]
