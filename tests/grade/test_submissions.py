"""Whatever lies in a student's folder, reading it is quick, follows nothing, and ends in words."""

import os
import stat
import subprocess
import sys

import pytest

from autograder import assignment as assignments
from autograder.grade.submissions import MAX_FILE_BYTES, MAX_LISTED, read, students
from autograder.quality.cases import Case
from autograder.results import Result


@pytest.fixture
def tiny(tiny_course):
    return assignments.load("tiny", tiny_course)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "submitted" / "s001" / "tiny"
    folder.mkdir(parents=True)
    return folder


def test_a_plain_file_is_read_as_it_is(tiny, folder):
    text = "x = 'ünïcode'\r\n\tpass\n"
    (folder / "tiny.py").write_bytes(text.encode())
    found = read(folder, "s001", tiny)
    assert found.files == {"tiny.py": text} and not found.problems and not found.flags


def link(path):
    path.symlink_to("/etc/passwd")


def device(path):
    path.symlink_to("/dev/zero")


def loop(path):
    path.symlink_to(path)


def huge(path):
    with open(path, "wb") as file:
        file.truncate(2**40)


def just_too_large(path):
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))


def socket(path):
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(path.parent)  # the whole path is longer than a socket's name may be
        server.bind(path.name)


@pytest.mark.parametrize("make", [link, device, loop, huge, just_too_large, os.mkfifo, os.mkdir, socket])
def test_what_is_no_plain_file_is_refused_and_flagged(tiny, folder, make, monkeypatch):
    monkeypatch.chdir(folder)
    make(folder / "tiny.py")
    found = read(folder, "s001", tiny)
    assert not found.files and len(found.flags) == 1
    problem = found.problems["tiny.py"]
    assert problem.startswith("The file `tiny.py` was refused: it is ") and problem.endswith(".")
    assert not any(character.isdigit() for character in problem.replace("1 MiB", "")), "an errno is no sentence"


@pytest.mark.parametrize("data", [b"\xff\xfe\x00\xd8", b"\x80abc", "ü".encode("latin-1"), b"# coding: punycode\n"])
def test_bytes_that_are_no_text_are_explained(tiny, folder, data):
    (folder / "tiny.py").write_bytes(data)
    assert "not UTF-8" in read(folder, "s001", tiny).problems["tiny.py"]


@pytest.mark.parametrize(
    ("encoding", "first"),
    [
        ("utf-8-sig", ""),
        *((name, f"# -*- coding: {name} -*-\n") for name in ("latin-1", "cp1252", "iso-8859-15", "mac-roman", "utf-8")),
        ("cp1252", "#!/usr/bin/python\n# vim: set fileencoding=cp1252 :\n"),
    ],
)
def test_a_file_is_decoded_as_python_does_it(tiny, folder, encoding, first):
    (folder / "tiny.py").write_bytes(f"{first}x = 'grün'\n".encode(encoding))
    text = read(folder, "s001", tiny).files["tiny.py"]
    found = {}
    exec(compile(text.encode(), "tiny.py", "exec"), found)  # as the sandbox gets it
    assert found["x"] == "grün" and text.count("\n") == first.count("\n") + 1


def test_chinese_text_is_decoded_too(tiny, folder):
    (folder / "tiny.py").write_bytes("# coding: gbk\nx = '能量'\n".encode("gbk"))
    assert read(folder, "s001", tiny).files["tiny.py"] == "# coding: utf-8\nx = '能量'\n"


@pytest.mark.parametrize("name", ["Tiny.py", "tiny (1).py", "tiny.py.txt", "tinny.py"])
def test_a_misnamed_file_is_named(tiny, folder, name):
    (folder / name).write_text("")
    assert f"one called `{name}`" in read(folder, "s001", tiny).problems["tiny.py"]


@pytest.mark.parametrize("name", ["tiny`.py", "tiny<b>.py", "tiny\n.py", "tiny\u202e.py"])
def test_odd_names_are_not_repeated(tiny, folder, name):
    (folder / name).write_text("")
    assert read(folder, "s001", tiny).problems["tiny.py"] == "The file `tiny.py` is missing."


def test_names_in_flags_are_plain_and_can_be_written_down(tiny, folder):
    for name in (b"\xff\xfe.pth", "\x1b[2J\u202e.pth".encode(), b"a" * 200 + b".pth", b"conftest.py"):
        with open(os.path.join(os.fsencode(folder), name), "w"):
            pass
    found = read(folder, "s001", tiny)
    assert len(found.flags) == 4 and all(flag.isascii() and flag.isprintable() for flag in found.flags)
    Result("tiny", "s001", 0.0, 1.0, found.sha256, "0", 0, list(found.flags)).to_json()


def test_an_empty_a_linked_and_an_absent_folder(tiny, folder, tmp_path):
    assert read(folder, "s001", tiny).problems == {"tiny.py": "The file `tiny.py` is missing."}
    assert "no folder" in read(tmp_path / "nowhere" / "tiny", "s001", tiny).problems["tiny.py"]
    (folder / "tiny.py").write_text("x = 1")
    linked = tmp_path / "submitted" / "s002"
    linked.symlink_to(folder.parent)
    found = read(linked / "tiny", "s002", tiny)
    assert not found.files and "a folder that is a link" in found.problems["tiny.py"] and found.flags
    (tmp_path / "submitted" / "s003").mkdir()
    (tmp_path / "submitted" / "s003" / "tiny").symlink_to(folder)
    assert not read(tmp_path / "submitted" / "s003" / "tiny", "s003", tiny).files
    (tmp_path / "submitted" / "s004").mkdir()
    (tmp_path / "submitted" / "s004" / "tiny").write_text("a file")
    assert not read(tmp_path / "submitted" / "s004" / "tiny", "s004", tiny).files
    assert students(tmp_path / "submitted", "tiny") == ["s001", "s002", "s003", "s004"]


def test_a_folder_of_many_files_is_flagged_and_not_searched(tiny, folder):
    (folder / "tiny.py").write_text("x = 1")
    for number in range(MAX_LISTED + 5):
        (folder / f"{number}.pth").touch()
    found = read(folder, "s001", tiny)
    assert found.flags == (f"brings more than {MAX_LISTED} files",) and found.files == {"tiny.py": "x = 1"}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user for this test")
def test_a_folder_that_may_not_be_read_is_a_problem_and_no_crash(tiny, folder):
    (folder / "tiny.py").write_text("x = 1")
    folder.chmod(0)
    program = (
        "import os, sys; from pathlib import Path; from autograder.grade.submissions import read;"
        "from autograder.assignment import Assignment; os.chdir('/');"
        "tiny = Assignment('', ('tiny.py',), (), {}, (), 1.0, 'tiny', Path('/'));"
        "os.seteuid(65534); print(read(Path(sys.argv[1]), 's001', tiny).problems)"
    )
    for parent in list(folder.parents)[:-1]:
        if stat.S_IMODE(parent.stat().st_mode) & 1 == 0:
            parent.chmod(parent.stat().st_mode | 1)
    run = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True)
    folder.chmod(0o700)
    assert "was refused" in run.stdout, run.stderr


def written(tiny, tmp_path, base, **edit):
    folder = tmp_path / f"{base}{len(list(tmp_path.iterdir()))}" / "tiny"
    Case("attacks", "x", "x", base, ({"file": "tiny.py", **edit},) if edit else ()).write(tiny, folder)
    return read(folder, "s001", tiny)


def test_what_the_release_itself_holds_is_not_flagged(tiny_course, tmp_path):
    source = tiny_course / "solutions" / "tiny" / "tiny.py"
    source.write_text("import pickle  # given\n" + source.read_text())
    tiny = assignments.load("tiny", tiny_course)
    assert written(tiny, tmp_path, "stub").flags == written(tiny, tmp_path, "reference").flags == ()
    assert written(tiny, tmp_path, "stub", append="\nimport pickle  # again\n").flags == ()
    assert written(tiny, tmp_path, "stub", append="\npickle.loads(b'')\n").flags == ("tiny.py contains `pickle.loads`",)


@pytest.mark.parametrize(
    "code",
    [
        "# os._exit(0) would end it",
        "x = 'a'  # the autograder uses pickle",
        "'''import pickle, says the text, and os._exit(0).'''",
        "socket = requests = subprocess = pickle = 3",
        "model.eval()\nre.compile('os._exit')",
        "from ebmcourse.checking.notebook import check_part",
    ],
)
def test_words_in_comments_and_texts_and_names_are_not_flagged(tiny, tmp_path, code):
    assert written(tiny, tmp_path, "reference", append=f"\n{code}\n").flags == ()


@pytest.mark.parametrize(
    "code", ["exec('import os; os._exit(0)')", "exec('''#\nos._exit(0)''')", "x = '#'; import os as _o; _os._exit(0)"]
)
def test_texts_that_may_be_run_are_flagged(tiny, tmp_path, code):
    assert written(tiny, tmp_path, "reference", append=f"\n{code}\n").flags == ("tiny.py contains `os._exit`",)


@pytest.mark.parametrize("edit", [{"duplicate": True}, {"after": "import pickle\n"}, {"source": "import pickle\n"}])
def test_the_release_of_a_notebook_is_not_flagged_however_it_is_copied(note_course, tmp_path, edit):
    script = note_course / "solutions" / "note" / "note.py"
    more = "FACTOR = 2.0  # no pickle\nimport pickle\nTEXT = 'os._exit'"
    script.write_text(script.read_text().replace("FACTOR = 2.0", more))
    note = assignments.load("note", note_course)
    case = Case("attacks", "x", "x", "reference", ({"file": "note.ipynb", "cell": "setup", **edit},))
    case.write(note, tmp_path / "s001" / "note")
    assert not any("contains" in flag for flag in read(tmp_path / "s001" / "note", "s001", note).flags)


@pytest.mark.parametrize("unit", ['"""', "'''\"", '"\\', "torch.Tensor.__", "np.testing.x ", "#", "\\", '"a\n'])
def test_no_text_takes_long_to_search(tiny, folder, unit):
    """Any of these would take hours, were the time to search them quadratic."""
    (folder / "tiny.py").write_text(unit * (MAX_FILE_BYTES // len(unit)))
    assert read(folder, "s001", tiny).files


def test_the_fingerprint_tells_submissions_apart(tiny, folder):
    seen = {read(folder, "s001", tiny).sha256}
    for make in (os.mkfifo, lambda path: path.write_text(""), lambda path: path.write_text("x"), os.mkdir):
        make(folder / "tiny.py")
        seen.add(read(folder, "s001", tiny).sha256)
        subprocess.run(["rm", "-r", str(folder / "tiny.py")], check=True)
    assert len(seen) == 4, "a pipe and a folder are refused in the same words"
