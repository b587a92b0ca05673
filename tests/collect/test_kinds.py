"""A source is of the kind that explains every name in it: students choose some of the names."""

from __future__ import annotations

import pytest
from sources import folder, tree, zipped

from autograder.assignment import load
from autograder.collect import collect


def canvas(n: int, file: str = "tiny.py") -> str:
    return f"student{n}_{n}_90{n}_{file}"


def test_a_file_named_as_by_another_platform_changes_nothing(tiny, tmp_path):
    forged = canvas(1, "Student2_2_assignsubmission_file_tiny.py")
    files = {canvas(1): "1", canvas(2): "2", canvas(3): "3", forged: "forged"}
    collected = collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out")
    assert collected.kind == "canvas" and collected.is_whole
    assert {name.partition("/")[0]: text for name, text in tree(tmp_path / "out").items() if "assign" not in name} == {
        f"student{n}-{n}": str(n) for n in (1, 2, 3)
    }


@pytest.mark.parametrize("inner", ["tiny", "jem"])
def test_a_clone_that_looks_like_nbgraders_layout_changes_nothing(tiny, tmp_path, inner):
    forged = {f"s001/{inner}/tiny.py": "1", f"s001/{inner}/timestamp.txt": "2020-01-01 00:00:00 UTC"}
    files = forged | {f"s00{n}/tiny.py": str(n) for n in (2, 3, 4)}
    collected = collect(folder(tmp_path / "clones", files), tiny, tmp_path / "out")
    assert collected.kind == "plain" and collected.students == {f"s00{n}": "new" for n in (1, 2, 3, 4)}
    assert tree(tmp_path / "out") == {f"s00{n}/tiny/tiny.py": str(n) for n in (1, 2, 3, 4)}


@pytest.mark.parametrize(
    ("files", "kind", "odd"),
    [
        ({canvas(1): "1", canvas(2): "2", "tiny.py": "whose?"}, "canvas", "tiny.py"),
        ({"A_1_assignsubmission_file/tiny.py": "1", "B/tiny.py": "2"}, "moodle", "B/tiny.py"),
        ({"A_1_assignsubmission_file_tiny.py": "1", "B_2_tiny.py": "2"}, "moodle", "B_2_tiny.py"),
        ({"s001/tiny.py": "1", "s002.py": "2"}, "plain", "s002.py"),
        ({"s001/tiny/timestamp.txt": "", "s001/tiny/tiny.py": "1", "note.txt": ""}, "nbgrader", "note.txt"),
    ],
)
def test_a_name_that_does_not_fit_has_to_be_decided(tiny, tmp_path, files, kind, odd):
    source, out = zipped(tmp_path / "a.zip", files), tmp_path / "out"
    with pytest.raises(ValueError, match=f"except for {odd}: --kind"):
        collect(source, tiny, out)
    assert not out.exists()
    collected = collect(source, tiny, out, kind=kind)
    assert odd in collected.problems[""][0] and not collected.is_whole
    assert list(collected.students.values()) == ["new"] * (len(files) - 1 - (kind == "nbgrader"))


def test_two_kinds_that_explain_everything_have_to_be_decided(tiny, tmp_path):
    source = zipped(tmp_path / "a.zip", {"doe_12_34_Roe_7_assignsubmission_file_tiny.py": "1"})
    with pytest.raises(ValueError, match="several kinds: choose with --kind moodle or --kind canvas"):
        collect(source, tiny, tmp_path / "out")
    assert collect(source, tiny, tmp_path / "out", kind="canvas").students == {"doe-12": "new"}


def test_what_systems_leave_behind_fits_everywhere(tiny, tmp_path):
    litter = {"__MACOSX/._x": "", ".DS_Store": "", "Thumbs.db": "", "desktop.ini": "", "._" + canvas(1): ""}
    collected = collect(zipped(tmp_path / "a.zip", litter | {canvas(1): "1"}), tiny, tmp_path / "out")
    assert collected.kind == "canvas" and collected.is_whole


def test_a_class_in_one_folder_is_not_one_student(tiny, tmp_path):
    files = {f"clones/s00{n}/tiny.py": str(n) for n in (1, 2)}
    with pytest.raises(ValueError, match="one folder, clones, with files to hand in at several places: unpack it"):
        collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out")


@pytest.mark.parametrize(
    "inner",
    [
        {"s002/tiny/tiny.py": "x", "s002/tiny/timestamp.txt": "2020-01-01 00:00:00 UTC"},
        {"Roe_2_assignsubmission_file/tiny.py": "x"},
        {"s002+tiny+2026-11-30 12:00:00 UTC+x/tiny.py": "x"},
    ],
)
def test_the_only_student_cannot_hand_in_for_another(tiny, tmp_path, inner):
    source = folder(tmp_path / "clones", {f"s001/{name}": text for name, text in inner.items()})
    with pytest.raises(ValueError, match=r"several kinds: .*--kind plain"):
        collect(source, tiny, tmp_path / "out")


@pytest.mark.parametrize("inner", ["", "/tiny", "/.git"])
def test_who_has_an_empty_folder_is_named(tiny, tmp_path, inner):
    source = folder(tmp_path / "clones", {"s001/tiny.py": "1"})
    (source / f"s002{inner}").mkdir(parents=True)
    collected = collect(source, tiny, tmp_path / "out")
    assert collected.students == {"s001": "new", "s002": "nothing"} and not collected.is_whole
    assert collected.lines() == ["plain: 1 new, 1 without files", "NOT collected: s002 (without files)"]


def test_an_empty_folder_in_a_zip_is_named(tiny, tmp_path):
    files = {"A_1_assignsubmission_file/tiny.py": "1", "B_2_assignsubmission_file/": ""}
    collected = collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out")
    assert collected.students == {"a-1": "new", "b-2": "nothing"} and not collected.is_whole


def test_who_typed_a_text_only_is_named(tiny, tmp_path):
    files = {canvas(1): "1", "student2_2_text.html": "typed"}
    collected = collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out")
    assert collected.students == {"student1-1": "new", "student2-2": "nothing"} and not collected.is_whole


@pytest.mark.parametrize(
    "files",
    [
        {canvas(1): "1", "student1_1_text.html": "typed"},
        {"A_1_assignsubmission_file/tiny.py": "1", "A_1_assignsubmission_onlinetext/onlinetext.html": "typed"},
    ],
    ids=["canvas", "moodle"],
)
def test_a_text_that_is_not_collected_is_said(tiny, tmp_path, files):
    collected = collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out")
    (remarks,) = (said for who, said in collected.remarks.items() if who)
    assert collected.is_whole and remarks == ["What was typed on the platform is not collected; read it there."]


def test_a_file_that_replaces_another_copy_is_said(tiny, tmp_path):
    source = folder(tmp_path / "clones", {"s001/tiny.py": "1", "s001/tiny (2).py": "2", "s001/tiny-1.py": "3"})
    collected = collect(source, tiny, tmp_path / "out")
    assert (tmp_path / "out/s001/tiny/tiny.py").read_text() == "2"
    assert collected.remarks["s001"] == [
        "tiny-1.py counts instead of another copy of tiny.py, which was left out.",
        "tiny (2).py counts instead of another copy of tiny.py, which was left out.",
    ]


def test_a_submission_without_the_files_to_hand_in_is_named(tiny, tmp_path):
    source = folder(tmp_path / "clones", {"s001/tiny.py": "1", "s002/README.md": "2"})
    collected = collect(source, tiny, tmp_path / "out")
    assert collected.students == {"s001": "new", "s002": "new"} and not collected.is_whole
    assert collected.problems["s002"] == ["has none of the files to hand in (tiny.py); other files: README.md."]


def test_a_submission_that_lacks_a_file_or_the_notebook_with_the_answers_is_named(tiny, tmp_path):
    (tiny.folder / "assignment.toml").write_text(
        (tiny.folder / "assignment.toml").read_text().replace('["tiny.py"]', '["tiny.py", "more.py"]')
    )
    script = tiny.folder.rename(tiny.folder.with_name("sheet")) / "sheet.py"
    script.write_text("# %% [markdown]\n# A question.\n")
    sheet = load("sheet", tiny.folder.parents[1])
    whole = {"tiny.py": "1", "more.py": "2", "sheet.ipynb": "{}"}
    files = {f"s001/{name}": text for name, text in whole.items()}
    files |= {"s002/tiny.py": "1", "s002/more.py": "2", "s003/sheet-1.ipynb": "{}", "s003/more.py": "2"}
    files |= {"s004/Tiny (1).py": "1", "s004/src/sheet.ipynb": "{}"} | {f"s004/{n}.txt": "" for n in range(3)}
    files |= {"s004/more.py": "2"}
    collected = collect(folder(tmp_path / "clones", files), sheet, tmp_path / "out")
    assert collected.problems == {
        "": [],
        "s002": ["lacks sheet.ipynb."],
        "s003": ["lacks tiny.py."],
        "s004": ["lacks tiny.py, sheet.ipynb; other files: 0.txt, 1.txt, 2.txt and 2 more."],
    }
    assert set(collected.students.values()) == {"new"} and not collected.is_whole


@pytest.mark.parametrize("files", [{}, {"README": "nobody's"}])
def test_a_source_without_submissions_is_said(tiny, tmp_path, files):
    with pytest.raises(ValueError, match="has no submissions"):
        collect(zipped(tmp_path / "a.zip", files), tiny, tmp_path / "out")
