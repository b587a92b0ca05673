"""One person keeps one id: another roster, or none, is found out before anybody is graded twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from sources import folder, tree, zipped
from test_platforms import CANVAS, GITHUB, GRADESCOPE, ILIAS, MOODLE

from autograder import assignment as assignments
from autograder.collect import collect, read_roster


def roster_of(path: Path, text: str):
    path.write_text(text, "utf-8")
    return read_roster(path)


@pytest.mark.parametrize("files", [MOODLE, CANVAS, GRADESCOPE], ids=["moodle", "canvas", "gradescope"])
@pytest.mark.parametrize("first", [True, False], ids=["with the roster first", "without it first"])
def test_other_ids_for_the_same_people_are_refused_and_nothing_is_changed(tiny, roster, tmp_path, files, first):
    source, out, people = zipped(tmp_path / "a.zip", files), tmp_path / "out", read_roster(roster)
    collect(source, tiny, out, roster=people if first else None)
    before = tree(out)
    with pytest.raises(ValueError, match=r"collected before under other ids \(.*, now .*so nothing was changed"):
        collect(source, tiny, out, roster=None if first else people, update=True)
    assert tree(out) == before
    assert collect(source, tiny, out, roster=people if first else None).is_whole


def test_after_the_old_folders_are_removed_the_new_ids_count(tiny, tmp_path):
    source, out = folder(tmp_path / "clones", {"jd/tiny.py": "1", "jr/tiny.py": "2"}), tmp_path / "out"
    collect(source, tiny, out, roster=roster_of(tmp_path / "r.csv", "id,account\ns001,jd\ns002,jr\n"))
    corrected = roster_of(tmp_path / "r.csv", "id,account\ns001,jd\ns003,jr\n")
    with pytest.raises(ValueError, match=r"\(jr: s002, now s003\)"):
        collect(source, tiny, out, roster=corrected)
    shutil.rmtree(out / "s002")
    for _ in range(2):
        assert collect(source, tiny, out, roster=corrected).is_whole
    assert sorted(tree(out)) == ["s001/tiny/tiny.py", "s003/tiny/tiny.py"]


@pytest.mark.parametrize("files", [ILIAS, GITHUB], ids=["ilias", "github"])
def test_the_same_roster_and_more_students_are_no_change(tiny, roster, tmp_path, files):
    source, out, people = zipped(tmp_path / "a.zip", files), tmp_path / "out", read_roster(roster)
    for given in (people, people, None):  # without the roster, these platforms give the ids that it has
        assert collect(source, tiny, out, roster=given, update=True).is_whole


def test_a_group_may_change(tiny, tmp_path):
    source, out = folder(tmp_path / "clones", {"red/tiny.py": "1"}), tmp_path / "out"
    for members in (("s001", "s002"), ("s001", "s003"), ("s004", "s005")):
        people = "".join(f"{student},red\n" for student in members)
        assert collect(source, tiny, out, roster=roster_of(tmp_path / "r.csv", f"id,group\n{people}")).is_whole
    with pytest.raises(ValueError, match=r"\(red: s004, s005, now red\)"):
        collect(source, tiny, out)


def test_other_ids_than_in_another_assignment_are_a_problem_that_is_named(tiny, roster, tmp_path):
    other = tiny.folder.with_name("more")
    shutil.copytree(tiny.folder, other)
    (tmp_path / "a.zip").write_bytes(b"")
    source, out = zipped(tmp_path / "a.zip", CANVAS), tmp_path / "out"
    assert collect(source, tiny, out, roster=read_roster(roster)).is_whole
    collected = collect(source, assignments.load("more", other.parents[1]), out)
    assert set(collected.students.values()) == {"new"} and not collected.is_whole
    (problem,) = collected.problems[""]
    assert problem.startswith("other ids than in tiny (") and "etudiantun 41: s001, now etudiantun-41" in problem


def test_other_ids_than_from_another_platform_are_said(tiny, roster, tmp_path):
    canvas, moodle = zipped(tmp_path / "a.zip", CANVAS), zipped(tmp_path / "b.zip", MOODLE)
    out, people = tmp_path / "out", read_roster(roster)
    assert collect(canvas, tiny, out).remarks[""] == []
    before = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    for _ in range(2):
        said = collect(moodle, tiny, out).remarks[""]
        (remark,) = [line for line in said if line.startswith("other ids than from canvas")]
        assert before[0] in remark and "graded twice" in remark
    shutil.rmtree(out)
    assert collect(canvas, tiny, out, roster=people).is_whole
    assert not any("other ids" in remark for remark in collect(moodle, tiny, out, roster=people).remarks[""])
    others = folder(tmp_path / "clones", {"s009/tiny.py": "1"})
    both = roster_of(tmp_path / "both.csv", roster.read_text("utf-8") + "s009\n")
    assert collect(others, tiny, out, roster=both).remarks[""] == []


@pytest.mark.parametrize("text", ["{", "[]", '{"tiny": {"plain": {"a": [1]}}}', '{"tiny": {"plain": []}}'])
def test_a_damaged_record_of_ids_is_said(tiny, tmp_path, text):
    source = folder(tmp_path / "clones", {"s001/tiny.py": "1"})
    (tmp_path / "out" / ".collected").mkdir(parents=True)
    (tmp_path / "out" / ".collected" / ".ids.json").write_text(text)
    with pytest.raises(ValueError, match="delete it and collect again"):
        collect(source, tiny, tmp_path / "out")
