"""A result is graded again when anything changes that the mark depends on, and only then."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autograder import assignment as assignments
from autograder.grade import fingerprint as module
from autograder.grade.fingerprint import difference, fingerprint, known, parts, remember

# Modules that the grader imports and that no mark depends on.
WITHOUT_EFFECT = {"autograder.grade.job", "autograder.sandbox.bubblewrap", "autograder.sandbox.limits"}
WITHOUT_EFFECT |= {f"autograder.sandbox.{name}" for name in ("free_memory", "selftest", "selftest_inside")}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the students' library and the autograder that a test may change."""
    for name, variable in (("ebmcourse", "_LIBRARY"), ("autograder", "_AUTOGRADER")):
        source = getattr(module, variable)
        shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "_fonts"))
        monkeypatch.setattr(module, variable, tmp_path / name)
    return tmp_path


def change(path: Path) -> None:
    path.write_text(path.read_text() + "\n# another line\n")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("course/solutions/tiny/checks/test_1.py", "the checks in test_1.py"),
        ("course/solutions/tiny/tiny.py", "the reference tiny.py"),
        ("course/solutions/tiny/assignment.toml", "the description of the assignment"),
        ("ebmcourse/checking/compare.py", "the students' library with the checking engine"),
        ("autograder/grade/repair.py", "the grader"),
        ("autograder/sandbox/inside.py", "the grader"),
        ("autograder/release/stubs.py", "the grader"),
    ],
)
def test_a_change_is_noticed_and_named(tiny_course, project, file, words):
    tiny = assignments.load("tiny", tiny_course)
    before, sha256 = parts(tiny), fingerprint(tiny)
    change(project / file)
    assert difference(before, parts(tiny)) == [words] and fingerprint(tiny) != sha256


def test_a_change_of_the_limits_or_a_package_is_noticed_and_named(tiny_course, monkeypatch):
    tiny = assignments.load("tiny", tiny_course)
    before = parts(tiny)
    monkeypatch.setitem(module.LIMITS, "memory_bytes", 1)
    assert difference(before, parts(tiny)) == ["the limits"]
    monkeypatch.undo()
    monkeypatch.setattr(module, "version", lambda package: "0.1" if package == "torch" else before[package])
    assert difference(before, parts(tiny)) == ["torch"]


@pytest.mark.parametrize(
    "file",
    [
        "course/solutions/tiny/README.md",
        "course/solutions/tiny/quality/mutants/x.toml",
        "course/solutions/other/checks/test_1.py",
        "autograder/cli.py",
        "autograder/report/pages.py",
        "autograder/grade/workers.py",
    ],
)
def test_what_marks_do_not_depend_on_changes_nothing(tiny_course, project, file):
    shutil.copytree(tiny_course / "solutions" / "tiny", tiny_course / "solutions" / "other")
    (tiny_course / "solutions" / "tiny" / "quality" / "mutants").mkdir(parents=True)
    (tiny_course / "solutions" / "tiny" / "quality" / "mutants" / "x.toml").touch()
    tiny = assignments.load("tiny", tiny_course)
    before = fingerprint(tiny)
    change(project / file)
    assert fingerprint(tiny) == before


def test_the_notebook_is_a_reference_where_it_is_handed_in(note_course):
    note = assignments.load("note", note_course)
    before = parts(note)
    change(note_course / "solutions" / "note" / "note.py")
    assert difference(before, parts(note)) == ["the reference note.py"]


def test_every_module_that_grades_is_part_of_it():
    program = "import sys, autograder.grade.grader, autograder.release.notebooks\n"
    program += "print(*(name for name, found in sys.modules.items() if name.startswith('autograder.') and"
    program += " not hasattr(found, '__path__')))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    covered = {f"autograder.{name.removesuffix('.py').replace('/', '.')}" for name in module._GRADER}
    assert set(run.stdout.split()) | {"autograder.sandbox.inside"} == covered | WITHOUT_EFFECT


def test_what_a_fingerprint_was_made_of_is_kept_with_the_results(tiny_course, tmp_path):
    tiny = assignments.load("tiny", tiny_course)
    remember(tmp_path, tiny, "first")
    change(tiny_course / "solutions" / "tiny" / "checks" / "test_1.py")
    remember(tmp_path, tiny, "second")
    remember(tmp_path, tiny, "first")
    found = known(tmp_path)
    assert difference(found["first"], found["second"]) == ["the checks in test_1.py"]
    (path,) = tmp_path.glob(".finger*")
    for damaged in (b"", b"[]", b'{"first": 1}', path.read_bytes()[:-9], b"\xff"):
        path.write_bytes(damaged)
        assert known(tmp_path) == {}
