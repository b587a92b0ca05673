"""A result is graded again when anything changes that the mark depends on, and only then."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from autograder import assignment as assignments
from autograder.grade import fingerprint as module
from autograder.grade.fingerprint import fingerprint


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the students' library that a test may change."""
    shutil.copytree(module._LIBRARY, tmp_path / "ebmcourse", ignore=shutil.ignore_patterns("__pycache__", "_fonts"))
    monkeypatch.setattr(module, "_LIBRARY", tmp_path / "ebmcourse")
    return tmp_path / "ebmcourse"


def test_a_change_of_the_comparison_the_limits_or_a_package_grades_again(tiny_course, library, monkeypatch):
    tiny = assignments.load("tiny", tiny_course)
    seen = [fingerprint(tiny)]
    compare = library / "checking" / "compare.py"
    compare.write_text(compare.read_text() + "\n# another tolerance\n")
    seen.append(fingerprint(tiny))
    monkeypatch.setitem(module.LIMITS, "memory_bytes", 1)
    seen.append(fingerprint(tiny))
    monkeypatch.setattr(module, "version", lambda package: "0.1")
    seen.append(fingerprint(tiny))
    (tiny_course / "solutions" / "tiny" / "checks" / "test_1.py").write_text("changed")
    seen.append(fingerprint(tiny))
    assert len(set(seen)) == len(seen)


def test_what_marks_do_not_depend_on_changes_nothing(tiny_course, library):
    tiny = assignments.load("tiny", tiny_course)
    before = fingerprint(tiny)
    (tiny_course / "solutions" / "tiny" / "README.md").write_text("other words")
    (tiny_course / "solutions" / "tiny" / "quality").mkdir()
    (tiny_course / "solutions" / "tiny" / "quality" / "x.toml").write_text("")
    assert fingerprint(tiny) == before
