"""A small assignment, and a roster."""

from __future__ import annotations

from pathlib import Path

import pytest

from autograder import assignment as assignments

ROSTER = """\
id,name,email,moodle,canvas,submitted
s001,Étudiant Un,s001@example.org,1000001,41,2026-11-30 12:00:00 UTC
s002,"Deux, Étudiante",s002@example.org,1000002,42,
s003,Student,s003@example.org,1000003,43,
s004,Student,s004@example.org,1000004,44,
"""


@pytest.fixture
def tiny(tiny_course: Path) -> assignments.Assignment:
    return assignments.load("tiny", tiny_course)


@pytest.fixture
def roster(tmp_path: Path) -> Path:
    path = tmp_path / "roster.csv"
    path.write_text(ROSTER, "utf-8")
    return path
