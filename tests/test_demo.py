"""`make demo`, or `python -m autograder.demo NAME` for one assignment."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_an_unknown_assignment_is_reported_in_one_line():
    done = subprocess.run([sys.executable, "-m", "autograder.demo", "nothing"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("There is no assignment 'nothing'") and "Traceback" not in done.stderr
