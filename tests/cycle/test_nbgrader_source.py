"""nbgrader's source folder: the release with the instructors' notebook."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner
from nbgrader_course import differences

from autograder import assignment as assignments
from autograder.cli import main
from autograder.release.build import build
from autograder.release.nbgrader_source import fill


@pytest.fixture
def released(note_course: Path) -> Path:
    build(assignments.load("note", note_course), note_course / "assignments" / "note")
    return note_course / "assignments" / "note"


def test_only_the_notebook_differs_from_the_release(note_course: Path, released: Path) -> None:
    source = fill(assignments.load("note", note_course), note_course)
    assert source == note_course / "build" / "source" / "note"
    assert differences(source, released) == ["note.ipynb"]
    texts = [cell.source for cell in nbformat.read(source / "note.ipynb", 4).cells]
    assert any("secret_product" in text for text in texts)
    assert any("### BEGIN HIDDEN TESTS" in text for text in texts)


def test_rebuilding_removes_old_files(note_course: Path, released: Path) -> None:
    note = assignments.load("note", note_course)
    source = fill(note, note_course)
    assert source
    shutil.copytree(source, note_course / "first")
    (source / "left-over.txt").write_text("x")
    (released / "__pycache__").mkdir()
    assert fill(note, note_course) == source
    assert differences(source, note_course / "first") == []


def test_without_a_notebook_there_is_no_source_folder(tiny_course: Path) -> None:
    assert fill(assignments.load("tiny", tiny_course), tiny_course) is None
    assert not (tiny_course / "build").exists()


@pytest.mark.slow
def test_release_builds_the_source_folder_and_check_does_not(
    note_course: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autograder.release.gate.stub_complaints", lambda released: [])  # it takes seconds

    def release(*options: str) -> None:
        done = CliRunner().invoke(main, ["--course", str(note_course), "release", "note", *options])
        assert done.exit_code == 0, done.output

    release()
    source = note_course / "build" / "source" / "note"
    assert differences(source, note_course / "assignments" / "note") == ["note.ipynb"]
    shutil.rmtree(source)
    release("--check")
    assert not source.exists()
