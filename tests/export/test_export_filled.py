"""Marks travel back: the files that Canvas and Moodle gave out, with nothing changed but the marks."""

from __future__ import annotations

import csv
import io
import os
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autograder import assignment as assignments
from autograder.cli import main
from autograder.collect import collect, read_roster
from autograder.collect.table import read_table
from autograder.results import Result, write_result

# As downloaded: the byte order mark, a row about posting, read-only columns, the test student at the end.
CANVAS = """\
\ufeffStudent,ID,SIS User ID,SIS Login ID,Section,"Sheet 1; the first (99)",jem (100),Current Score,Final Score
,,,,,Manual Posting,,(read only),(read only)
"    Points Possible",,,,,20,10.00,(read only),(read only)
"Un, Étudiant",41,1000001,s001,"Group ""A"", and B",17.25,,86.25,86.25
"Deux, Étudiante",42,1000002,s002,Group B,,3,,
"Trois, Étudiant",43,1000003,s003,Group B,N/A,EX,,
"Student, Test",99,,a9993e364706816aba3e25717850c26c9cd0d89d,Group B,,,,
"""
MOODLE = """\
\ufeffIdentifier,"Full name","ID number","Email address",Status,Group,Grade,"Maximum Grade","Grade can be changed",\
"Last modified (submission)","Last modified (grade)","Feedback comments"
"Participant 501","Étudiant Un",1000001,s001@example.org,"Submitted for grading","Team A",,10.00,Yes,\
"Monday, 30 November 2026, 11:59 PM",-,
"Participant 502","Étudiante Deux",1000002,s002@example.org,"No submission","Team A",4.50,10.00,Yes,-,-,\
"<p>Good, ""very"" good</p>
<p>second line</p>"
"Participant 503","Étudiant Trois",1000003,s003@example.org,"No submission",,,10.00,Yes,-,-,
"""


def results(folder: Path, assignment: str = "jem", full: float = 10.0, **scores: float) -> Path:
    for student, score in scores.items():
        write_result(folder, Result(assignment, student, score, full, "", "", 0))
    return folder


def sheet(tmp_path: Path, text: str, encoding: str = "utf-8", end: str = "\r\n") -> Path:
    path = tmp_path / "download.csv"
    path.write_bytes(text.replace("\n", end).encode(encoding))
    return path


def export(folder: Path, to: str, roster: Path, *more: str):
    return CliRunner().invoke(main, ["export", str(folder), "--to", to, "--roster", str(roster), *more])


def cells(text: str, separator: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))


def changed(before: str, after: str, separator: str = ",") -> dict[tuple[int, int], str]:
    """The new values by row and column; both tables have the same size."""
    old, new = cells(before, separator), cells(after, separator)
    assert [len(row) for row in old] == [len(row) for row in new]
    pairs = zip(old, new, strict=True)
    return {(n, k): b for n, (x, y) in enumerate(pairs) for k, (a, b) in enumerate(zip(x, y, strict=True)) if a != b}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_canvas_gets_its_own_file_with_the_marks_in_one_column(tmp_path: Path, end: str) -> None:
    download = sheet(tmp_path, CANVAS, end=end)
    before = download.read_bytes()
    done = export(results(tmp_path / "results", s001=7.5, s003=0.0), "canvas", download)
    path = tmp_path / "results" / "download.filled.csv"
    assert done.exit_code == 0 and f"wrote {path}" in done.output
    assert "No result, so the row stays as it was: s002\n" in done.output
    assert download.read_bytes() == before
    after = path.read_bytes()
    assert changed(before.decode(), after.decode()) == {(3, 6): "7.5", (5, 6): "0"}
    # Quotes, blanks, line ends and the byte order mark are the same.
    assert after.decode() == before.decode().replace("17.25,,86", "17.25,7.5,86").replace("N/A,EX", "N/A,0")


def test_moodle_gets_its_own_worksheet_with_the_grades(tmp_path: Path) -> None:
    download = sheet(tmp_path, MOODLE)
    before = download.read_bytes().decode()
    # The ids are those that `collect` gives with this file as the roster.
    folder = results(tmp_path / "results", **{"1000001": 7.25, "1000003": 10.0})
    done = export(folder, "moodle", download)
    assert done.exit_code == 0 and "stays as it was: 1000002\n" in done.output
    after = (folder / "download.filled.csv").read_bytes().decode()
    assert changed(before, after) == {(1, 6): "7.25", (3, 6): "10"}
    assert after.replace(",7.25,10.00", ",,10.00").replace(",10,10.00", ",,10.00") == before


def test_moodle_also_gets_the_pages_of_feedback_in_a_zip(tmp_path: Path) -> None:
    download = sheet(tmp_path, MOODLE.replace("Team A", ""))
    folder = results(tmp_path / "results", **{"1000001": 7.25, "1000002": 3.0, "1000003": 10.0})
    done = export(folder, "moodle", download)
    assert done.exit_code == 0 and "see `autograder report`): 1000001, 1000002, 1000003\n" in done.output
    assert not (folder / "jem.feedback.zip").exists()

    pages = folder / "jem" / "feedback"
    pages.mkdir()
    for name in ("1000001", "1000002"):
        (pages / f"{name}.html").write_text(f"page of {name}")
    os.utime(pages / "1000002.html", (0, 0))  # before the result was written
    done = export(folder, "moodle", download)
    path = folder / "jem.feedback.zip"
    assert f"wrote {path}" in done.output and "see `autograder report`): 1000002, 1000003\n" in done.output
    with zipfile.ZipFile(path) as archive:
        found = {name: archive.read(name).decode() for name in archive.namelist()}
    assert found == {"Étudiant Un_501_assignfeedback_file_jem.html": "page of 1000001"}

    os.utime(pages / "1000001.html", (0, 0))
    export(folder, "moodle", download)
    assert not path.exists()


def test_the_pages_of_feedback_for_groups_are_not_in_a_zip(tmp_path: Path) -> None:
    folder = results(tmp_path / "results", **{"1000001": 7.25})
    (folder / "jem" / "feedback").mkdir()
    (folder / "jem" / "feedback" / "1000001.html").write_text("page")
    assert export(folder, "moodle", sheet(tmp_path, MOODLE)).exit_code == 0
    assert not (folder / "jem.feedback.zip").exists()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("separator", [";", "\t"])
def test_separators_encodings_and_decimal_commas_are_kept(tmp_path: Path, encoding: str, separator: str) -> None:
    rows = cells(MOODLE[1:])
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\n").writerows(rows)
    download = sheet(tmp_path, "\ufeff" + text.getvalue().replace("10.00", "10,00"), encoding)
    before = download.read_bytes()
    folder = results(tmp_path / "results", **{"s001@example.org": 7.25})
    assert export(folder, "moodle", download).exit_code == 0
    after = (folder / "download.filled.csv").read_bytes()
    assert changed(before.decode(encoding), after.decode(encoding), separator) == {(1, 6): "7,25"}


def test_it_can_be_repeated(tmp_path: Path) -> None:
    folder = results(tmp_path / "results", s001=7.5, s002=3.0)
    download = sheet(tmp_path, CANVAS)
    export(folder, "canvas", download)
    first = (folder / "download.filled.csv").read_bytes()
    export(folder, "canvas", download)
    assert (folder / "download.filled.csv").read_bytes() == first
    export(folder, "canvas", folder / "download.filled.csv")
    assert (folder / "download.filled.filled.csv").read_bytes() == first


def test_a_result_without_a_row_is_named_after_the_others_are_written(tmp_path: Path) -> None:
    folder = results(tmp_path / "results", s001=7.5, s099=3.0)
    done = export(folder, "canvas", sheet(tmp_path, CANVAS))
    assert done.exit_code == 1 and "has no row for these results" in done.output
    assert "lacks them: s099. Their ids come from `autograder collect`" in done.output
    assert "7.5" in (folder / "download.filled.csv").read_text("utf-8")


def test_students_are_found_by_any_unique_name_and_rows_are_filled_once(tmp_path: Path) -> None:
    folder = results(tmp_path / "results", **{"1000001": 7.5, "42": 3.0})
    assert export(folder, "canvas", sheet(tmp_path, CANVAS)).exit_code == 0
    done = export(results(folder, s001=1.0), "canvas", sheet(tmp_path, CANVAS))
    assert (
        done.exit_code == 2 and "row 4: the results of 1000001 and s001 for jem both belong to this row" in done.output
    )


def test_several_assignments_go_to_their_columns_in_one_file(tmp_path: Path) -> None:
    folder = results(tmp_path / "results", s001=7.5)
    results(folder, "sheet_one", full=20.0, s001=11.0)
    download = sheet(tmp_path, CANVAS)
    done = export(folder, "canvas", download)
    assert done.exit_code == 2 and "no column 'sheet_one'" in done.output and "--column sheet_one=TITLE" in done.output
    column = "--column=sheet_one=Sheet 1; the first"
    assert export(folder, "canvas", download, column).exit_code == 0
    after = (folder / "download.filled.csv").read_text("utf-8")
    assert changed(download.read_text("utf-8"), after) == {(3, 5): "11", (3, 6): "7.5"}
    assert export(folder, "canvas", download, "--assignment", "jem").exit_code == 0
    after = (folder / "download.filled.csv").read_text("utf-8")
    assert changed(download.read_text("utf-8"), after) == {(3, 6): "7.5"}


def test_the_title_of_the_assignment_names_the_column(tmp_path: Path) -> None:
    title = "Generative and predictive modelling of printed glyphs"  # of the assignment jem
    folder = results(tmp_path / "results", s001=7.5)
    assert export(folder, "canvas", sheet(tmp_path, CANVAS.replace("jem (100)", f"{title} (100)"))).exit_code == 0
    done = export(folder, "canvas", sheet(tmp_path, CANVAS.replace("Sheet 1; the first", "Jem")))
    assert done.exit_code == 2 and "several columns" in done.output


def test_a_worksheet_of_moodle_has_one_assignment(tmp_path: Path) -> None:
    folder = results(tmp_path / "results", **{"s001@example.org": 7.5})
    results(folder, "other", **{"s001@example.org": 1.0})
    done = export(folder, "moodle", sheet(tmp_path, MOODLE))
    assert done.exit_code == 2 and "choose it with --assignment" in done.output
    assert export(folder, "moodle", sheet(tmp_path, MOODLE), "--assignment", "jem").exit_code == 0


@pytest.mark.parametrize(("to", "text", "who"), [("canvas", CANVAS, "s001"), ("moodle", MOODLE, "s001@example.org")])
def test_marks_are_scaled_to_another_full_mark_only_if_asked(tmp_path: Path, to: str, text: str, who: str) -> None:
    folder = results(tmp_path / "results", full=32.0, **{who: 16.0})
    download = sheet(tmp_path, text)
    done = export(folder, to, download)
    assert done.exit_code == 2 and "The full mark of jem is 32, but 10 in" in done.output and "--scale" in done.output
    assert not (folder / "download.filled.csv").exists()
    assert export(folder, to, download, "--scale").exit_code == 0
    after = (folder / "download.filled.csv").read_bytes().decode()
    assert list(changed(download.read_bytes().decode(), after).values()) == ["5"]


def test_other_rosters_and_formats_are_exported_as_before(tmp_path: Path) -> None:
    folder = results(tmp_path / "results", s001=7.5)
    export(folder, "moodle", sheet(tmp_path, CANVAS))
    assert (folder / "jem.moodle.csv").exists()
    done = export(folder, "csv", sheet(tmp_path, CANVAS), "--scale")
    assert done.exit_code == 2 and "--column and --scale need a download" in done.output


def test_the_test_student_of_canvas_is_not_in_the_roster(tmp_path: Path) -> None:
    assert sorted(read_roster(sheet(tmp_path, CANVAS)).people) == ["s001", "s002", "s003"]
    # Without logins, the ids are the best column that all students have; the test student does not count.
    lines = [line.split("|") for line in CANVAS.replace(", ", " ").replace(",", "|").splitlines()]
    text = "\n".join(",".join(line[:3] + line[4:]) for line in lines).replace('"Student Test"', '"Student, Test"')
    assert sorted(read_roster(sheet(tmp_path, text)).people) == ["1000001", "1000002", "1000003"]


@given(st.lists(st.lists(st.text("a\"', ;\n\r1", max_size=4), min_size=2, max_size=4), min_size=1, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_cell_is_found_and_filled_in_its_place(tmp_path: Path, table: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows([["x", "y", "z"], *table])
    path = tmp_path / "any.csv"
    path.write_bytes(b"\xef\xbb\xbf" + text.getvalue().encode())
    read = read_table(path)
    assert [[cell.value for cell in line] for line in read.lines[1:]] == [[v.strip() for v in row] for row in table]
    assert read.filled({}) == path.read_bytes()
    filled = cells(read.filled({(2, 3): "9", (2, 0): "8"}).decode()[1:])
    assert filled[1] == ["8", *table[0][1:3], *[""] * (3 - len(table[0])), "9"] and filled[2:] == table[1:]


def test_the_marker_late_of_canvas_reaches_the_mark_without_any_times(tmp_path: Path) -> None:
    home = tmp_path / "course"
    (home / "solutions" / "jem").mkdir(parents=True)
    (home / "course.toml").write_text('[late]\npolicy = "percent"\nper_day = 10\n')
    source = tmp_path / "source"
    source.mkdir()
    for name in ("unetudiant_41_7_ex_model.py", "deuxetudiante_LATE_42_8_ex_model.py"):
        (source / name).write_text("x = 1\n")
    download, submitted = sheet(tmp_path, CANVAS), tmp_path / "submitted"
    collect(source, assignments.load("jem"), submitted, kind="canvas", roster=read_roster(download))
    folder = results(tmp_path / "results", s001=10.0, s002=10.0)
    options = ["--submitted", str(submitted)]
    done = CliRunner().invoke(
        main,
        ["--course", str(home), "export", str(folder), "--to", "canvas", "--roster", str(download), *options],
    )
    assert done.exit_code == 0 and "s002, jem: Canvas calls it late" in done.output
    after = (folder / "download.filled.csv").read_text("utf-8")
    assert changed(download.read_text("utf-8"), after) == {(3, 6): "10", (4, 6): "9"}


def test_anonymous_worksheets_of_moodle_are_filled_by_the_number_of_the_participant(tmp_path: Path) -> None:
    text = "Identifier,Status,Grade,Maximum Grade\nParticipant 501,,,10.00\nParticipant 502,,,10.00\n"
    folder = results(tmp_path / "results", **{"Participant 501": 7.5, "participant-502": 3.0})
    download = sheet(tmp_path, text)
    assert export(folder, "moodle", download).exit_code == 0
    after = (folder / "download.filled.csv").read_text("utf-8")
    assert changed(text, after) == {(1, 2): "7.5", (2, 2): "3"}


def test_the_worksheet_of_a_german_moodle_is_filled(tmp_path: Path) -> None:
    text = 'ID,E-Mail-Adresse,Bewertung,Bestwertung\nTeilnehmer/in501,s001@example.org,,"10,00"\n'
    folder = results(tmp_path / "results", **{"s001@example.org": 7.5})
    download = sheet(tmp_path, text)
    done = export(folder, "moodle", download)
    assert done.exit_code == 0, done.output
    assert (folder / "download.filled.csv").read_text("utf-8").splitlines()[1].endswith(',"7,5","10,00"')
