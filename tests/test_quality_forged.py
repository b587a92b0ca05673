"""The grader graded: no forged reply to a check of the course is accepted.

In a file of its own, so that it runs beside the grading of the cases.
"""

from __future__ import annotations

import pytest

from autograder import assignment as assignments
from autograder.quality.forged import measure_forged


@pytest.mark.slow
@pytest.mark.parametrize("name", assignments.names())
def test_no_forged_reply_survives_without_an_explanation(name):
    complaints = measure_forged(assignments.load(name)).complaints
    assert not complaints, "\n".join(complaints)
