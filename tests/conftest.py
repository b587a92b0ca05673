"""Fixtures that all tests share."""

from __future__ import annotations

import shutil
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import HealthCheck, settings

# A machine that is ten times slower fails no test.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

collect_ignore = ["cases"]  # the courses there have checks, which are no tests

TINY = {
    "assignment.toml": """
        title = "A tiny assignment"
        files = ["tiny.py"]

        [parts]
        "1a" = "Doubling"
        "1b" = "Adding"

        [limits]
        seconds = 60
        """,
    "README.md": """
        # Tiny

        1a gives {points:1a} points, 1b {points:1b}.
        """,
    "tiny.py": '''
        """A tiny program."""

        import torch


        def double(x: torch.Tensor) -> torch.Tensor:
            """Twice x, of any shape."""
            ### BEGIN SOLUTION 1a
            # TODO Return twice x, of the same shape. Mind the "dtype".
            # It stays as it is.
            secret_factor = torch.tensor(2.0, dtype=x.dtype)
            return secret_factor * x
            ### END SOLUTION


        def plus(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            ### BEGIN SOLUTION 1b
            # TODO Return x + y.
            return torch.add(x, y, alpha=1)
            ### END SOLUTION
        ''',
    "checks/test_1.py": '''
        """The checks of the tiny assignment."""

        import numpy as np
        import torch

        from ebmcourse.checking import assert_close, exercise, inputs, probe


        @inputs
        def numbers(rng):
            return torch.from_numpy(rng.standard_normal((3, 4)).astype(np.float32))


        @probe
        def doubled(student, x):
            return student.tiny.double(x)


        @probe
        def added(student, x):
            return student.tiny.plus(x, x + 1)


        @exercise("1a", points=2, public=True, hint="Multiply by two.")
        def test_double(run, numbers):
            """`double` doubles."""
            got, want = run(doubled, numbers)
            assert_close(got, want, mistakes={"This is the square.": numbers**2})


        ### BEGIN HIDDEN TESTS
        @exercise("1b", points=1, hint="Add.")
        def test_plus(run, numbers):
            """`plus` adds."""
            got, want = run(added, numbers)
            assert_close(got, want, mistakes={"This is the difference of both.": -torch.ones(3, 4)})


        ### END HIDDEN TESTS
        ''',
}


def write_files(folder: Path, files: dict[str, str]) -> None:
    """Write dedented texts below `folder`."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(dedent(text).lstrip("\n"), "utf-8")


@pytest.fixture
def tiny_course(tmp_path: Path) -> Path:
    """A course with one assignment, `tiny`, which the engine has never heard of."""
    write_files(tmp_path / "course" / "solutions" / "tiny", TINY)
    return tmp_path / "course"


@pytest.fixture(scope="session")
def needs_sandbox() -> None:
    """Skip where submissions cannot be confined."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed, so nothing can be confined here")


NOTE = {
    "assignment.toml": """
        title = "A notebook that is handed in"
        files = ["note.ipynb"]

        [parts]
        "1a" = "Doubling"
        "1b" = "Adding"

        [limits]
        seconds = 60
        """,
    "README.md": "# Note\n",
    "note.py": '''
        # %% nbgrader={"grade_id": "setup", "locked": true}
        # %matplotlib inline
        import torch

        from ebmcourse.checking.notebook import check_part, once_written

        FACTOR = 2.0


        # %% nbgrader={"grade_id": "double", "solution": true}
        def double(x):
            """Twice x."""
            ### BEGIN SOLUTION 1a
            # TODO Return twice x.
            secret_product = FACTOR * x
            return secret_product
            ### END SOLUTION


        # %%
        with once_written():
            print("looking", double(torch.ones(2)))

        # %% nbgrader={"grade_id": "test-1a", "grade": true, "locked": true}
        check_part("1a")


        # %% nbgrader={"grade_id": "plus", "solution": true}
        def plus(x, y):
            """x + y."""
            ### BEGIN SOLUTION 1b
            # TODO Return the sum.
            return torch.add(x, y, alpha=1)
            ### END SOLUTION


        # %% nbgrader={"grade_id": "test-1b", "grade": true, "locked": true}
        check_part("1b")
        ''',
    "checks/test_1.py": TINY["checks/test_1.py"].replace("student.tiny", "student.note"),
}


@pytest.fixture
def note_course(tmp_path: Path) -> Path:
    """A course with one assignment, `note`, of which the notebook is handed in."""
    write_files(tmp_path / "course" / "solutions" / "note", NOTE)
    return tmp_path / "course"
