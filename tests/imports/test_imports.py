"""Submissions from other systems, hostile ones among them, in nbgrader's layout."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from autograder import assignment as assignments
from autograder.cli import main
from autograder.imports import archive, collect, layout
from autograder.imports.people import read_roster

ROSTER = """\
id,name,email,moodle,canvas,submitted
s001,Étudiant Un,s001@example.org,1000001,41,2026-11-30 12:00:00 UTC
s002,"Deux, Étudiante",s002@example.org,1000002,42,
s003,Student,s003@example.org,1000003,43,
s004,Student,s004@example.org,1000004,44,
"""
TEXT = "def double(x):\n    return 2 * x\n"


@pytest.fixture
def tiny(tiny_course: Path) -> assignments.Assignment:
    return assignments.load("tiny", tiny_course)


@pytest.fixture
def roster(tmp_path: Path) -> Path:
    path = tmp_path / "roster.csv"
    path.write_text("\ufeff" + ROSTER, "utf-8")
    return path


def zipped(path: Path, files: dict[str, str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return path


def inner_zip(files: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            made.writestr(name, content)
    return buffer.getvalue()


def tree(folder: Path) -> dict[str, str]:
    """What was collected: content by path."""
    return {
        path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in folder.rglob("*") if path.is_file()
    }


MOODLE = {
    "Étudiant Un_1000001_assignsubmission_file_/tiny.py": "1",
    "Étudiante Deux_1000002_assignsubmission_file/tiny.py": "2",
    "Étudiante Deux_1000002_assignsubmission_file/pictures/a.txt": "a",
    "Student_1000003_assignsubmission_file_tiny.py": "3",
    "Student_1000004_assignsubmission_file_tiny.py": "4",
    "Student_1000004_assignsubmission_onlinetext_onlinetext.html": "<p>See file</p>",
}
CANVAS = {
    "etudiantun_41_9001_tiny.py": "1",
    "deuxétudiante_LATE_42_9002_tiny-1.py": "2",
    "student_43_9003_tiny-2.py": "3",
    "student_43_9004_notes_on_it-1.txt": "n",
    "student_44_9005_tiny.py": "4",
    "student_44_text.html": "typed",
}


@pytest.mark.parametrize(
    ("files", "kind", "more"),
    [
        (MOODLE, "moodle", {"s002/tiny/pictures/a.txt": "a"}),
        (CANVAS, "canvas", {"s003/tiny/notes_on_it-1.txt": "n"}),
    ],
)
def test_a_zip_of_another_system_becomes_nbgraders_layout(tiny, roster, tmp_path, files, kind, more):
    source, out = zipped(tmp_path / "all.zip", files), tmp_path / "submitted"
    collected = collect(source, tiny, out, roster=read_roster(roster))
    assert (collected.kind, collected.is_whole, collected.unknown) == (kind, True, [])
    times = {"s001/tiny/timestamp.txt": "2026-11-30 12:00:00.000000 UTC"}
    assert tree(out) == {f"s00{n}/tiny/tiny.py": str(n) for n in (1, 2, 3, 4)} | more | times
    assert collected.late == (["s002"] if kind == "canvas" else [])


@pytest.mark.parametrize("files", [MOODLE, CANVAS])
def test_the_unpacked_folder_gives_the_same(tiny, roster, tmp_path, files):
    source = zipped(tmp_path / "all.zip", files)
    with zipfile.ZipFile(source) as made:
        made.extractall(tmp_path / "unpacked")
    for path, out in ((source, "a"), (tmp_path / "unpacked", "b")):
        collect(path, tiny, tmp_path / out, roster=read_roster(roster))
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_without_a_roster_ids_are_made_of_name_and_number(tiny, tmp_path):
    collect(zipped(tmp_path / "m.zip", MOODLE), tiny, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("etudiantun-1000001", "etudiantedeux-1000002", "student-1000003", "student-1000004")
    }


def test_who_is_not_in_the_roster_is_named_and_left_out(tiny, roster, tmp_path):
    files = {"Nobody_7_assignsubmission_file_/tiny.py": "", "Student_8_assignsubmission_file_/tiny.py": ""}
    collected = collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out", roster=read_roster(roster))
    assert collected.unknown == ["Nobody 7", "Student 8"]  # two students are called just Student
    assert not collected.is_whole and not (tmp_path / "out").exists()


def test_two_submissions_of_one_student_are_not_mixed(tiny, roster, tmp_path):
    files = {f"Étudiant Un_{n}_assignsubmission_file_/tiny.py": str(n) for n in (5, 6)}
    collected = collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out", roster=read_roster(roster))
    assert collected.students == {"s001": "twice"} and not collected.is_whole
    assert "Étudiant Un 5, Étudiant Un 6" in collected.remarks["s001"][0]


def test_folders_and_clones_and_nbgraders_own(tiny, tmp_path):
    layout = {
        "s001/tiny.py": "on top",
        "s002/assignments/tiny/tiny.py": "below",
        "s002/README.md": "not a part of it",
        "s003/tiny/tiny.py": "of several",
        "s003/other/tiny.py": "another assignment",
        "s004/.git/config": "x",
        "s004/tiny.py": "clone",
        "s004/timestamp.txt": "2020-01-01 00:00:00 UTC",
        "list.txt": "of nobody",
    }
    for name, text in layout.items():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_text(text)
    collected = collect(tmp_path / "source", tiny, tmp_path / "out")
    assert collected.kind == "plain" and collected.is_whole
    assert tree(tmp_path / "out") == {
        f"s00{n}/tiny/tiny.py": text for n, text in enumerate(("on top", "below", "of several", "clone"), start=1)
    }
    assert collected.remarks["s004"] == ["It brings its own timestamp.txt: left out."]
    for student in ("s001", "s002"):
        (tmp_path / "out" / student / "tiny" / "timestamp.txt").write_text("2026-11-30 12:00:00 UTC")
        (tmp_path / "nb" / student).mkdir(parents=True)
        (tmp_path / "out" / student / "tiny").rename(tmp_path / "nb" / student / "tiny")
    again = collect(tmp_path / "nb", tiny, tmp_path / "again")
    assert again.kind == "nbgrader" and tree(tmp_path / "again") == tree(tmp_path / "nb")


def test_a_zip_that_a_student_hands_in_is_unpacked(tiny, tmp_path):
    packed = inner_zip({"my work/tiny.py": TEXT, "my work/data/x.txt": "x", "__MACOSX/._tiny.py": "", "a/../b": "c"})
    source = zipped(tmp_path / "a.zip", {"Student_1_assignsubmission_file_/work.zip": packed})
    collected = collect(source, tiny, tmp_path / "out")
    assert tree(tmp_path / "out") == {"student-1/tiny/tiny.py": TEXT, "student-1/tiny/data/x.txt": "x"}
    assert any("a/../b is refused" in remark for remark in collected.remarks["student-1"])


def test_a_second_run_changes_nothing_and_nothing_is_overwritten_unasked(tiny, tmp_path):
    first = zipped(tmp_path / "1.zip", {"s001/tiny.py": "1", "s002/tiny.py": "2"})
    second = zipped(tmp_path / "2.zip", {"s001/tiny.py": "new", "s002/tiny.py": "2", "s003/tiny.py": "3"})
    out = tmp_path / "out"
    assert collect(first, tiny, out).students == {"s001": "new", "s002": "new"}
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert collect(first, tiny, out).students == {"s001": "unchanged", "s002": "unchanged"}
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == stamps
    careful = collect(second, tiny, out)
    assert careful.students == {"s001": "differs", "s002": "unchanged", "s003": "new"} and not careful.is_whole
    assert tree(out)["s001/tiny/tiny.py"] == "1"
    assert collect(second, tiny, out, update=True).students["s001"] == "replaced"
    assert tree(out)["s001/tiny/tiny.py"] == "new"
    assert sorted(path.name for path in (out / "s001").iterdir()) == ["tiny"]


def test_a_link_in_the_place_of_a_submission_is_not_written_through(tiny, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "out/s001").mkdir(parents=True)
    (tmp_path / "out/s001/tiny").symlink_to(tmp_path / "precious")
    source = zipped(tmp_path / "1.zip", {"s001/tiny.py": "1"})
    assert collect(source, tiny, tmp_path / "out").students == {"s001": "differs"}
    assert collect(source, tiny, tmp_path / "out", update=True).students == {"s001": "replaced"}
    assert list((tmp_path / "precious").iterdir()) == [] and tree(tmp_path / "out") == {"s001/tiny/tiny.py": "1"}


# Hostile archives


@pytest.mark.parametrize(
    "name",
    [
        *("../escaped.py", "s001/../../escaped.py", "/escaped.py", "s001//escaped.py", "..\\escaped.py"),
        *(
            "C:\\escaped.py",
            "s001/./escaped.py",
            f"s001/{'x' * 300}.py",
            "s001/a\x1b[2Jb.py",
            "s001/" + "a/" * 30 + "b.py",
        ),
    ],
)
def test_names_that_lead_elsewhere_are_refused_and_the_rest_is_taken(tiny, tmp_path, name):
    (tmp_path / "work").mkdir()
    source = zipped(tmp_path / "work" / "a.zip", {name: "x", "s001/tiny.py": TEXT})
    collected = collect(source, tiny, tmp_path / "work" / "out")
    assert tree(tmp_path / "work" / "out") == {"s001/tiny/tiny.py": TEXT}
    assert len(collected.remarks[""]) == 1 and "is refused" in collected.remarks[""][0]
    assert collected.remarks[""][0].isprintable()
    assert not list(tmp_path.rglob("*escaped*"))


@pytest.mark.parametrize(("kind", "said"), [(stat.S_IFLNK, "a link"), (stat.S_IFIFO, "not a regular file")])
def test_links_and_devices_in_an_archive_are_refused(tiny, tmp_path, kind, said):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        info = zipfile.ZipInfo("s001/secret.txt")
        info.external_attr = (kind | 0o777) << 16
        made.writestr(info, "/etc/passwd")
        made.writestr("s001/tiny.py", TEXT)
    collected = collect(tmp_path / "a.zip", tiny, tmp_path / "out")
    assert tree(tmp_path / "out") == {"s001/tiny/tiny.py": TEXT} and said in collected.remarks[""][0]


def test_links_and_pipes_in_a_folder_are_refused(tiny, tmp_path):
    folder = tmp_path / "source" / "s001"
    folder.mkdir(parents=True)
    (folder / "tiny.py").write_text(TEXT)
    (folder / "link.txt").symlink_to("/etc/passwd")
    (folder / "folder").symlink_to("/etc")
    os.mkfifo(folder / "pipe")
    collected = collect(tmp_path / "source", tiny, tmp_path / "out")
    assert tree(tmp_path / "out") == {"s001/tiny/tiny.py": TEXT}
    assert len(collected.remarks[""]) == 2 and "pipe is refused" in collected.remarks["s001"][0]


def test_what_unpacks_to_more_than_a_submission_is_refused_by_what_it_is(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 1000)
    source = zipped(tmp_path / "a.zip", {"s001/tiny.py": TEXT, "s001/bomb.bin": bytes(10**6), "s002/tiny.py": TEXT})
    data = bytearray(source.read_bytes())
    data = data.replace(struct.pack("<I", 10**6), struct.pack("<I", 10))  # the archive says that it is small
    source.write_bytes(data)
    collected = collect(source, tiny, tmp_path / "out")
    assert tree(tmp_path / "out") == {f"s00{n}/tiny/tiny.py": TEXT for n in (1, 2)}
    assert "bomb.bin is refused" in collected.remarks["s001"][0]


def test_a_submission_has_a_size_and_a_number_of_files(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "MAX_FILES", 3)
    files = {f"s001/f{n}.txt": "x" for n in range(10)} | {"s002/tiny.py": TEXT}
    collected = collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out")
    assert len(list((tmp_path / "out/s001/tiny").iterdir())) == 3 and "left out" in collected.remarks["s001"][0]
    assert (tmp_path / "out/s002/tiny/tiny.py").exists()
    monkeypatch.setattr(layout, "MAX_FILES", 300)
    monkeypatch.setattr(layout, "MAX_SUBMISSION_BYTES", 5)
    collect(zipped(tmp_path / "b.zip", files), tiny, tmp_path / "b")
    assert len(list((tmp_path / "b/s001/tiny").iterdir())) == 5


def test_an_archive_with_too_many_entries_is_refused_as_a_whole(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_ENTRIES", 5)
    files = {f"s001/{n}.txt": "" for n in range(6)}
    with pytest.raises(ValueError, match="no archive of submissions"):
        collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "a.zip") as made:
        made.extractall(tmp_path / "folder")
    with pytest.raises(ValueError, match="no folder of submissions"):
        collect(tmp_path / "folder", tiny, tmp_path / "out")


def test_damaged_encrypted_and_doubled_entries_are_refused(tiny, tmp_path):
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr("s001/tiny.py", TEXT)
        made.writestr("s001/tiny.py", "second")
        made.writestr("s001/broken.txt", "once was whole")
        made.writestr("s001/locked.txt", "locked")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data = data.replace(b"once was whole", b"once was wholE")  # the checksum no longer fits
    for header, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.rindex(header) + offset] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    collected = collect(tmp_path / "a.zip", tiny, tmp_path / "out")
    assert tree(tmp_path / "out") == {"s001/tiny/tiny.py": TEXT}
    said = " ".join(collected.remarks[""] + collected.remarks["s001"])
    assert (
        "there twice" in said and "locked.txt is refused: it is encrypted" in said and "broken.txt is refused" in said
    )


def test_names_in_other_encodings_are_read(tiny, tmp_path):
    source = zipped(tmp_path / "a.zip", {"s001/bäume.txt": "x", "s001/tiny.py": TEXT})
    data = source.read_bytes()
    source.write_bytes(data.replace(b"\x00\x08\x08\x00", b"\x00\x00\x08\x00"))  # no longer says that names are UTF-8
    collect(source, tiny, tmp_path / "out")
    assert set(tree(tmp_path / "out")) == {"s001/tiny/tiny.py", "s001/tiny/bäume.txt"}


def test_a_file_in_the_place_of_a_folder_is_no_accident(tiny, tmp_path):
    packed = inner_zip({"tiny.py": TEXT, "a": "file", "a/b": "below it"})
    collect(zipped(tmp_path / "a.zip", {"s001/work.zip": packed}), tiny, tmp_path / "out")
    assert tree(tmp_path / "out") == {"s001/tiny/tiny.py": TEXT, "s001/tiny/a": "file"}


@pytest.mark.parametrize("name", ["+", "a+b", ".hidden", "a*", "b.timings"])
def test_folders_that_cannot_be_students_are_named(tiny, tmp_path, name):
    (tmp_path / "source" / name).mkdir(parents=True)
    (tmp_path / "source" / name / "tiny.py").write_text("")
    collected = collect(tmp_path / "source", tiny, tmp_path / "out")
    assert not collected.is_whole and not (tmp_path / "out").exists()


# Rosters and the command


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name\nx\n", "no column `id`"),
        ("id\ns001\ns001\n", "row 3: the id 's001' stands twice"),
        ("id\na/b\n", "cannot be the name of a folder"),
        ("id,submitted\ns001,yesterday\n", "row 2: 'yesterday' is no time"),
    ],
)
def test_a_mistake_in_the_roster_is_said(tmp_path, text, complaint):
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        read_roster(tmp_path / "r.csv")


def test_a_roster_may_be_separated_by_semicolons(tmp_path):
    (tmp_path / "r.csv").write_text("id;name\ns001;Doe, Jane\n")
    roster = read_roster(tmp_path / "r.csv")
    assert roster.find(("jane doe",)) == roster.find(("DoeJane",)) == roster.find(("S001",)) == "s001"
    (tmp_path / "l.csv").write_bytes("id,name\ns001,é\n".encode("latin-1"))
    with pytest.raises(ValueError, match="CSV UTF-8"):
        read_roster(tmp_path / "l.csv")


def test_the_command_says_what_it_did_and_what_is_to_be_done(tiny_course, roster, tmp_path):
    def run(*arguments: str):
        return CliRunner().invoke(main, ["--course", str(tiny_course), "collect", *arguments])

    source = zipped(tmp_path / "a.zip", CANVAS | {"nobody_7_9009_tiny.py": ""})
    done = run(str(source), "tiny", "--out", str(tmp_path / "out"), "--roster", str(roster))
    assert done.exit_code == 1
    assert "canvas: 4 new" in done.output and "called late by Canvas: s002" in done.output
    assert "not in the roster, or not to be told apart: nobody 7" in done.output
    assert run(str(zipped(tmp_path / "b.zip", CANVAS)), "tiny", "--out", str(tmp_path / "b")).exit_code == 0
    for path, said in ((tmp_path / "no.zip", "there is no"), (roster, "neither a folder nor a whole zip file")):
        wrong = run(str(path), "tiny", "--out", str(tmp_path / "c"))
        assert wrong.exit_code == 2 and said in wrong.output and "Traceback" not in wrong.output
    wrong = run(str(source), "tiny", "--out", str(tmp_path / "c"), "--kind", "moodle")
    assert wrong.exit_code == 2 and "not of the kind moodle" in wrong.output
