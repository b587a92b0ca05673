"""Hostile and broken submissions: nothing escapes, nothing is taken from elsewhere, and nobody stops the others."""

from __future__ import annotations

import os
import stat
import struct
import zipfile

import pytest
from sources import TEXT, folder, inner_zip, tree, zipped

from autograder.collect import archive, collect, layout


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
    assert tree(tmp_path / "work" / "out") == {"s001/tiny/tiny.py": TEXT} and not collected.is_whole
    assert len(collected.problems[""]) == 1 and "is refused" in collected.problems[""][0]
    assert collected.problems[""][0].isprintable()
    assert not list(tmp_path.rglob("*escaped*"))


@pytest.mark.parametrize(("kind", "said"), [(stat.S_IFLNK, "a link"), (stat.S_IFIFO, "not a regular file")])
def test_links_and_devices_in_an_archive_are_refused(tiny, tmp_path, kind, said):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        info = zipfile.ZipInfo("s001/secret.txt")
        info.external_attr = (kind | 0o777) << 16
        made.writestr(info, "/etc/passwd")
        made.writestr("s001/tiny.py", TEXT)
    collected = collect(tmp_path / "a.zip", tiny, tmp_path / "out")
    assert tree(tmp_path / "out") == {"s001/tiny/tiny.py": TEXT} and not collected.is_whole
    assert collected.problems["s001"] == [f"secret.txt is refused: it is {said}."]


def test_links_and_pipes_in_a_folder_are_refused(tiny, tmp_path):
    source = folder(tmp_path / "source", {"s001/tiny.py": TEXT, "s002/tiny.py": TEXT})
    (source / "s001/link.txt").symlink_to("/etc/passwd")
    (source / "s001/folder").symlink_to("/etc")
    (source / "s003").symlink_to(source / "s002")
    os.mkfifo(source / "s001/pipe")
    collected = collect(source, tiny, tmp_path / "out")
    assert tree(tmp_path / "out") == {f"s00{n}/tiny/tiny.py": TEXT for n in (1, 2)}
    assert [text.split(" is refused")[0] for text in collected.problems["s001"]] == ["folder", "link.txt", "pipe"]
    assert collected.students["s003"] == "nothing" and "s003 is refused: it is a link." in collected.problems["s003"]


def test_a_hard_link_to_the_file_of_another_user_is_refused(tiny, tmp_path, monkeypatch):
    source = folder(tmp_path / "source", {"s001/tiny.py": TEXT, "s001/own.txt": "x"})
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    os.link(secret, source / "s001/stolen.txt")
    os.link(source / "s001/own.txt", source / "s001/own_too.txt")
    real = os.stat

    def of_another(path, *arguments, **options):
        about = real(path, *arguments, **options)
        if path != "stolen.txt":
            return about
        return os.stat_result([*about[:4], about.st_uid + 1, *about[5:]])

    monkeypatch.setattr(os, "stat", of_another)
    collected = collect(source, tiny, tmp_path / "out")
    assert sorted(tree(tmp_path / "out")) == [f"s001/tiny/{name}" for name in ("own.txt", "own_too.txt", "tiny.py")]
    assert collected.problems["s001"] == ["stolen.txt is refused: it is a link to another user's file."]


def test_a_folder_that_becomes_a_link_after_it_was_listed_is_not_followed(tiny, tmp_path, monkeypatch):
    source = folder(tmp_path / "source", {"s001/tiny.py": TEXT, "s001/data/x.txt": "mine", "secret/x.txt": "secret"})
    arranged = layout.arranged

    def swapped(*arguments):
        if not (source / "s001/data").is_symlink():
            (source / "s001/data").rename(tmp_path / "aside")
            (source / "s001/data").symlink_to(source / "secret")
        return arranged(*arguments)

    monkeypatch.setattr("autograder.collect.collecting.arranged", swapped)
    collected = collect(source, tiny, tmp_path / "out")
    assert tree(tmp_path / "out/s001") == {"tiny/tiny.py": TEXT}
    assert collected.problems["s001"] == ["data/x.txt is refused: it is a link or removed."]


def test_what_unpacks_to_more_than_a_submission_is_refused_by_what_it_is(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 1000)
    source = zipped(tmp_path / "a.zip", {"s001/tiny.py": TEXT, "s001/bomb.bin": bytes(10**6), "s002/tiny.py": TEXT})
    data = bytearray(source.read_bytes())
    for size in (10**6, 10):  # what the archive says: the truth first, and then that it is small
        data = data.replace(struct.pack("<I", 10**6), struct.pack("<I", size))
        source.write_bytes(data)
        collected = collect(source, tiny, tmp_path / f"out{size}")
        assert tree(tmp_path / f"out{size}") == {f"s00{n}/tiny/tiny.py": TEXT for n in (1, 2)}
        assert "bomb.bin is refused" in collected.problems["s001"][0] and not collected.is_whole


def test_a_submission_has_a_size_and_a_number_of_files(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "MAX_FILES", 3)
    files = {f"s001/f{n}.txt": "x" for n in range(10)} | {"s002/tiny.py": TEXT}
    collected = collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out")
    assert len(list((tmp_path / "out/s001/tiny").iterdir())) == 3 and "left out" in collected.problems["s001"][0]
    assert (tmp_path / "out/s002/tiny/tiny.py").exists() and not collected.is_whole
    monkeypatch.setattr(layout, "MAX_FILES", 300)
    monkeypatch.setattr(layout, "MAX_SUBMISSION_BYTES", 5)
    collect(zipped(tmp_path / "b.zip", files), tiny, tmp_path / "b")
    assert len(list((tmp_path / "b/s001/tiny").iterdir())) == 5


def test_an_archive_with_too_many_entries_is_refused_as_a_whole(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_ENTRIES", 5)
    files = {f"s001/{n}.txt": "" for n in range(6)}
    with pytest.raises(ValueError, match="not an archive of submissions"):
        collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "a.zip") as made:
        made.extractall(tmp_path / "folder")
    with pytest.raises(ValueError, match="not a folder of submissions"):
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
    assert tree(tmp_path / "out") == {"s001/tiny/tiny.py": TEXT} and not collected.is_whole
    assert "occurs twice" in collected.problems[""][0]
    broken, locked = collected.problems["s001"]
    assert "broken.txt is refused" in broken and "locked.txt is refused: it is encrypted" in locked


def test_names_in_other_encodings_are_read(tiny, tmp_path):
    source = zipped(tmp_path / "a.zip", {"s001/bäume.txt": "x", "s001/tiny.py": TEXT})
    data = source.read_bytes()
    source.write_bytes(data.replace(b"\x00\x08\x08\x00", b"\x00\x00\x08\x00"))  # no longer says that names are UTF-8
    collect(source, tiny, tmp_path / "out")
    assert set(tree(tmp_path / "out")) == {"s001/tiny/tiny.py", "s001/tiny/bäume.txt"}


def test_a_name_of_both_a_file_and_a_folder_is_taken_as_a_file(tiny, tmp_path):
    packed = inner_zip({"tiny.py": TEXT, "a": "file", "a/b": "below it"})
    collect(zipped(tmp_path / "a.zip", {"s001/work.zip": packed}), tiny, tmp_path / "out")
    assert tree(tmp_path / "out") == {"s001/tiny/tiny.py": TEXT, "s001/tiny/a": "file"}


@pytest.mark.parametrize("name", ["+", "a+b", ".hidden", "a*", "b.timings", "x" * 201])
def test_folders_that_cannot_be_students_are_named_and_the_others_taken(tiny, tmp_path, name):
    source = folder(tmp_path / "source", {f"{name}/tiny.py": "", "s001/tiny.py": TEXT})
    collected = collect(source, tiny, tmp_path / "out")
    assert not collected.is_whole and tree(tmp_path / "out") == {"s001/tiny/tiny.py": TEXT}
    assert any(name[:100] in line for line in collected.lines())


# Zip files that students hand in


def test_a_zip_that_a_student_hands_in_is_unpacked(tiny, tmp_path):
    packed = inner_zip({"my work/tiny.py": TEXT, "my work/data/x.txt": "x", "__MACOSX/._tiny.py": "", "a/../b": "c"})
    source = zipped(tmp_path / "a.zip", {"Student_1_assignsubmission_file_/work.zip": packed})
    collected = collect(source, tiny, tmp_path / "out")
    assert tree(tmp_path / "out") == {"student-1/tiny/tiny.py": TEXT, "student-1/tiny/data/x.txt": "x"}
    assert any("a/../b is refused" in problem for problem in collected.problems["student-1"])


def packed(method: int, encrypted: bool = False, version: int = 20) -> bytes:
    """A zip file with one file, and with other headers than its content needs."""
    data = bytearray(inner_zip({"tiny.py": TEXT}))
    for header, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        at = data.index(header) + shift
        data[at + 4 : at + 6] = struct.pack("<H", version)
        data[at + 6] |= encrypted
        data[at + 8 : at + 10] = struct.pack("<H", method)
    return bytes(data)


WHOLE = inner_zip({"tiny.py": TEXT})
BROKEN = {
    "not LZMA": packed(zipfile.ZIP_LZMA),
    "not bzip2": packed(zipfile.ZIP_BZIP2),
    "unknown method": packed(99),
    "unknown version": packed(8, version=90),
    "encrypted": packed(8, encrypted=True),
    "truncated": WHOLE[: len(WHOLE) // 2],
    "without an end": WHOLE[:-22],
    "empty": b"",
    "no zip": b"hello",
    "bad name": inner_zip({"tiny.py": TEXT}).replace(b"tiny.py", b"tiny\x00py"),
    "bomb": inner_zip({f"{n}": bytes(2**20) for n in range(300)}),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_zip_stops_nobody_else(tiny, tmp_path, content):
    (tmp_path / "source/s001").mkdir(parents=True)
    (tmp_path / "source/s001/work.zip").write_bytes(content)
    folder(tmp_path / "source", {"s002/tiny.py": TEXT})
    collected = collect(tmp_path / "source", tiny, tmp_path / "out")
    assert collected.students["s002"] == "new" and tree(tmp_path / "out/s002") == {"tiny/tiny.py": TEXT}
    assert not collected.is_whole and collected.problems["s001"]
    assert any(line.startswith("s001: ") for line in collected.lines())


def test_a_zip_of_very_many_files_is_refused_before_it_is_read(tiny, tmp_path, monkeypatch):
    (tmp_path / "source/s001").mkdir(parents=True)
    (tmp_path / "source/s001/work.zip").write_bytes(b"PK\x01\x02" * 20_001)
    monkeypatch.setattr(zipfile, "ZipFile", None)
    collected = collect(tmp_path / "source", tiny, tmp_path / "out")
    assert any("more than 20000 files" in problem for problem in collected.problems["s001"])


@pytest.mark.parametrize("error", [RuntimeError("anything"), MemoryError(), RecursionError(), OSError(28, "no space")])
def test_whatever_a_submission_raises_stops_nobody_else(tiny, tmp_path, monkeypatch, error):
    arranged = layout.arranged

    def failing(handed, *arguments):
        if handed.label == "s001":
            raise error
        return arranged(handed, *arguments)

    monkeypatch.setattr("autograder.collect.collecting.arranged", failing)
    source = folder(tmp_path / "source", {"s001/tiny.py": TEXT, "s002/tiny.py": TEXT})
    collected = collect(source, tiny, tmp_path / "out")
    assert collected.students == {"s001": "failed", "s002": "new"} and not collected.is_whole
    assert "cannot be collected" in collected.problems["s001"][0]
    assert any("NOT collected: s001" in line for line in collected.lines())


# Where it is put


def test_a_link_in_the_place_of_a_submission_is_not_written_through(tiny, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "out/s001").mkdir(parents=True)
    (tmp_path / "out/s001/tiny").symlink_to(tmp_path / "precious")
    source = zipped(tmp_path / "1.zip", {"s001/tiny.py": "1"})
    careful = collect(source, tiny, tmp_path / "out")
    assert careful.students == {"s001": "differs"} and "its folder" in careful.problems["s001"][0]
    replaced = collect(source, tiny, tmp_path / "out", update=True)
    assert replaced.students == {"s001": "replaced"} and replaced.is_whole
    assert list((tmp_path / "precious").iterdir()) == [] and tree(tmp_path / "out") == {"s001/tiny/tiny.py": "1"}


def test_a_link_in_the_place_of_a_student_is_not_written_through(tiny, tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/s001").symlink_to(tmp_path / "precious")
    source = zipped(tmp_path / "1.zip", {"s001/tiny.py": "1", "s002/tiny.py": "2"})
    collected = collect(source, tiny, tmp_path / "out", update=True)
    assert collected.students == {"s001": "failed", "s002": "new"} and not collected.is_whole
    assert list((tmp_path / "precious").iterdir()) == []


def test_links_among_what_was_collected_before_are_named(tiny, tmp_path):
    out = folder(tmp_path / "out", {"s001/tiny/tiny.py": "1", "s001/tiny/data/x.txt": "x", "s002/other/x.txt": "2"})
    (out / "s001/tiny/data/link").symlink_to("/etc/passwd")
    (out / "s002/tiny").symlink_to(out / "s001/tiny")
    collected = collect(zipped(tmp_path / "1.zip", {"s003/tiny.py": "3"}), tiny, out)
    assert collected.students == {"s003": "new"} and not collected.is_whole
    assert "data/link" in collected.problems["s001"][0] and "its folder" in collected.problems["s002"][0]
