"""The nbgrader course: its folders point into this project (see docs/instructor.md).

`autograder release` fills `build/source` and `assignments`; marks come from `autograder grade` and reach nbgrader's
gradebook through `autograder export --to nbgrader`.
"""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent

c = get_config()  # noqa: F821 - nbgrader defines it

c.CourseDirectory.course_id = "ebmcourse"
c.CourseDirectory.root = str(ROOT)
c.CourseDirectory.source_directory = "build/source"
c.CourseDirectory.release_directory = "assignments"
c.CourseDirectory.submitted_directory = "submitted"
c.CourseDirectory.autograded_directory = "autograded"
c.CourseDirectory.feedback_directory = "feedback"

# nbgrader copies every other file from source over the student's before it grades: never the solutions.
c.Autograde.exclude_overwriting = {
    path.parent.name: tomllib.loads(path.read_text("utf-8"))["files"]
    for path in sorted((ROOT / "solutions").glob("*/assignment.toml"))
}
c.Execute.timeout = 600

# What students draw and train stays with them: `nbgrader submit` would copy it.
c.CourseDirectory.ignore = [".ipynb_checkpoints", "*.pyc", "__pycache__", "feedback", ".*", "data", "runs"]
